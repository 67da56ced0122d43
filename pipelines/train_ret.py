"""Train RET: what it adds to a training, from its data to the decoder that is exported."""

from pathlib import Path
from typing import Any

from cellular.checkpoint_files import find_checkpoint
from cellular.decoders.ret.checkpoint import Checkpoint, TeacherInfo, load_checkpoint
from cellular.decoders.ret.checkpoint import save_checkpoint as save
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.training.config import TrainRETConfig
from pipelines.model_card import ret_card
from pipelines.progress import Track, show
from pipelines.ret_worker import RET_WORK
from pipelines.training_data import prepare
from pipelines.training_run import Data, Recipe, Trained, TrainReport, absolute, data_folder
from pipelines.training_run import run as run_recipe

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


def run(
    config: TrainRETConfig,
    *,
    restart: bool = False,
    run_seconds: float | None = None,
    origin: dict[str, str] | None = None,
    track: Track = show,
) -> TrainReport:
    """Train, or go on with the training that was interrupted.

    Args:
        config: what to train.
        restart: discard a training in the target.
        run_seconds: end this run then, with a checkpoint; the same call goes on.
        origin: facts for the model card, such as the command and the commit.
        track: shows the progress of preparing the data.

    Raises:
        CellularError: something is wrong with the data, the settings or the target.
    """
    config = _absolute(config)
    base = load_checkpoint(config.base) if config.base else None
    recipe = Recipe(
        config=config,
        work=RET_WORK,
        prepare=lambda: _prepare(config, base, restart, track),
        export=lambda path, trained: _export(config, base, path, trained),
        decides=DECIDES,
    )
    return run_recipe(recipe, restart=restart, run_seconds=run_seconds, origin=origin)


def _absolute(config: TrainRETConfig) -> TrainRETConfig:
    """Paths that mean the same on every worker; the pieces of the base."""
    config = absolute(config)
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
        restart=restart and config.data_folder is None,
        accept=lambda fingerprint, dimension: _check_teacher(config, base, fingerprint, dimension),
        track=track,
    )
    return Data(
        identity=data.build,
        examples=data.rows,
        facts={"teacher": data.teacher.model_dump(), "dimension": data.dimension, "build": data.build},
        shards={
            "train": [folder / shard for shard in data.shards],
            "held_out": [folder / shard for shard in data.held_out],
        },
        columns=("pieces", "embedding"),
    )


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
    model.load_state_dict(trained.weights)
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
