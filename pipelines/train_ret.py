"""Train RET: what it adds to a training, from its data to the decoder that is exported."""

from pathlib import Path
from typing import Any

from cellular.checkpoint_files import find_checkpoint
from cellular.decoders.ret.checkpoint import Checkpoint, TeacherInfo, load_checkpoint
from cellular.decoders.ret.checkpoint import save_checkpoint as save
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.reward import blend
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.training.config import TrainRETConfig
from pipelines.model_card import ret_card
from pipelines.progress import Track
from pipelines.ret_worker import RET_WORK
from pipelines.training_data import prepare
from pipelines.training_run import Data, Recipe, Run, Trained, data_folder

DIMENSIONS = (384, 768)
DECIDES = {
    "base": True,
    "only": True,
    "applications": True,
    "precision": True,
    "sparsity": True,
    "variation": True,
    "reward": True,
    "loop": {"batch_tokens", "seed"},
}


def _recipe(config: TrainRETConfig, restart: bool, track: Track) -> Recipe:
    config = _with_base(config)
    base = load_checkpoint(config.base) if config.base else None
    return Recipe(
        config=config,
        work=RET_WORK,
        prepare=lambda: _prepare(config, base, restart, track),
        export=lambda path, trained: _export(config, base, path, trained),
        decides=DECIDES,
    )


run = Run(_recipe)


def _with_base(config: TrainRETConfig) -> TrainRETConfig:
    """The same with the folder of its base, and with the base's pieces."""
    if not config.base:
        return config
    folder = find_checkpoint(config.base).absolute()
    data = config.data.model_copy(update={"vocabulary": folder / "vocabulary.json"})
    return config.model_copy(update={"base": str(folder), "data": data})


def _prepare(config: TrainRETConfig, base: Checkpoint | None, restart: bool, track: Track) -> Data:
    folder = data_folder(config)
    data = prepare(
        config.data,
        folder,
        config.embedding,
        restart=restart,
        accept=lambda fingerprint, dimension: _check_teacher(config, base, fingerprint, dimension),
        track=track,
    )
    return Data.of(data, folder, ("pieces", "embedding"))


def _check_teacher(config: TrainRETConfig, base: Checkpoint | None, fingerprint: str, dimension: int) -> None:
    if dimension not in DIMENSIONS:
        raise CellularError(
            f"teacher {config.data.teacher.name} gives {dimension} numbers: RET reads 384 or 768"
        )
    if base and not config.only and fingerprint != base.teacher.fingerprint:
        raise CellularError(
            f"{config.base} reads {base.teacher.name} ({base.teacher.fingerprint}), not "
            f"{config.data.teacher.name} ({fingerprint}): add --only projection to give it another teacher"
        )


def _export(config: TrainRETConfig, base: Checkpoint | None, path: Path, trained: Trained) -> None:
    facts: dict[str, Any] = trained.facts
    model = RET(RETConfig(embedding_dimension=facts["dimension"], applications=applications(config, base)))
    weights = trained.weights
    if config.reward and base and not config.only:
        weights = blend(base.model.state_dict(), weights, config.reward.blend)
    model.load_state_dict(weights)
    vocabulary = config.data.vocabulary
    checkpoint = Checkpoint(
        model=model,
        vocabulary=Vocabulary.from_file(vocabulary) if vocabulary else Vocabulary.load(),
        teacher=TeacherInfo(**facts["teacher"], dimension=facts["dimension"]),
        training=trained.origin,
        precision=config.precision,
    )
    save(path, checkpoint, ret_card(config, checkpoint, trained.curve))


def applications(config: TrainRETConfig, base: Checkpoint | None) -> int:
    """Of the layer: as set, else as the base has them, else the default."""
    default = base.model.config if base else RETConfig()
    return config.applications or default.applications
