"""Train a lattice: what it adds to a training, from its data to the checkpoint with its card."""

from pathlib import Path

from cellular.checkpoint_files import find_checkpoint
from cellular.errors import CellularError
from cellular.lattice import Lattice3D, LatticeCheckpoint, save_lattice
from cellular.mlp import MLPCheckpoint, save_mlp
from cellular.training.groups import COLUMNS
from cellular.training.lattice import make_model
from cellular.training.lattice_config import TrainLatticeConfig
from pipelines.group_data import prepare_groups
from pipelines.lattice_worker import LATTICE_WORK
from pipelines.model_card import lattice_card
from pipelines.progress import Track, show
from pipelines.training_data import TrainingData, prepare
from pipelines.training_run import Data, Recipe, Trained, TrainReport, absolute, data_folder
from pipelines.training_run import run as run_recipe

DECIDES = {
    "objective": True,
    "pairs": True,
    "model": True,
    "lattice": True,
    "base": True,
    "history": True,
    "forget": True,
    "damage": True,
    "loss": True,
    "loop": {"batch", "seed"},
}


def run(
    config: TrainLatticeConfig,
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
        origin: facts for the card, such as the command and the commit.
        track: shows the progress of preparing the data.

    Raises:
        CellularError: something is wrong with the data, the settings or the target.
    """
    config = absolute(config)
    if config.base:
        config = config.model_copy(update={"base": str(find_checkpoint(config.base).absolute())})
    recipe = Recipe(
        config=config,
        work=LATTICE_WORK,
        prepare=lambda: _prepare(config, restart, track),
        export=lambda path, trained: _export(config, path, trained),
        decides=DECIDES,
    )
    return run_recipe(recipe, restart=restart, run_seconds=run_seconds, origin=origin)


def _prepare(config: TrainLatticeConfig, restart: bool, track: Track) -> Data:
    folder = data_folder(config)
    data = _make_data(config, folder, restart and config.data_folder is None, track)
    return Data(
        identity=data.build,
        examples=data.rows,
        facts={"teacher": data.teacher.model_dump(), "dimension": data.dimension, "build": data.build},
        shards={
            "train": [folder / shard for shard in data.shards],
            "held_out": [folder / shard for shard in data.held_out],
        },
        columns=COLUMNS if config.pairs else ("pieces", "embedding"),
    )


def _make_data(config: TrainLatticeConfig, folder: Path, restart: bool, track: Track) -> TrainingData:
    """Texts for `reconstruct`, which RET's training can share; groups of them for `map`."""

    def accept(fingerprint: str, dimension: int) -> None:
        _check_teacher(config, fingerprint, dimension)

    if config.pairs is None:
        return prepare(config.data, folder, config.embedding, restart=restart, accept=accept, track=track)
    return prepare_groups(
        config.data, config.pairs, folder, config.embedding, restart=restart, accept=accept, track=track
    )


def _check_teacher(config: TrainLatticeConfig, fingerprint: str, dimension: int) -> None:
    """See that the base reads what the teacher gives."""
    if config.base is None:
        return
    base = _read_base(config.base, config.model)
    if base != fingerprint:
        raise CellularError(
            f"{config.base} reads embeddings of {base}, not of {config.data.teacher.name} ({fingerprint}): "
            "train a new one"
        )


def _read_base(base: str, model: str) -> str:
    from cellular.lattice import load_lattice
    from cellular.mlp import load_mlp

    return load_mlp(base).teacher if model == "mlp" else load_lattice(base).teacher


def _export(config: TrainLatticeConfig, path: Path, trained: Trained) -> None:
    facts = trained.facts
    model = make_model(config, facts["dimension"])
    model.load_state_dict(trained.weights)
    about = {**trained.origin, "objective": config.objective, "history": config.history}
    fingerprint = facts["teacher"]["fingerprint"]
    if isinstance(model, Lattice3D):
        save_lattice(path, LatticeCheckpoint(model, fingerprint, about))
    else:
        save_mlp(path, MLPCheckpoint(model, fingerprint, about))
    (path / "README.md").write_text(lattice_card(config, model, facts, about, trained.curve), "utf-8")
