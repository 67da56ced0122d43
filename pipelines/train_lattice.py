"""Train a lattice: what it adds to a training, from its data to the checkpoint with its card."""

from pathlib import Path

from cellular.checkpoint_files import find_checkpoint
from cellular.errors import CellularError
from cellular.lattice import Lattice3D, LatticeCheckpoint, load_lattice, save_lattice
from cellular.mlp import MLPCheckpoint, load_mlp, save_mlp
from cellular.training.groups import COLUMNS
from cellular.training.guides import load_guide
from cellular.training.lattice import make_model
from cellular.training.lattice_config import TrainLatticeConfig
from pipelines.group_data import prepare_groups
from pipelines.lattice_worker import LATTICE_WORK
from pipelines.model_card import lattice_card
from pipelines.progress import Track
from pipelines.training_data import TrainingData, prepare
from pipelines.training_run import Data, Recipe, Run, Trained, data_folder

DECIDES = {
    "objective": True,
    "pairs": True,
    "model": True,
    "lattice": True,
    "mlp": True,
    "base": True,
    "guides": True,
    "history": True,
    "forget": True,
    "damage": True,
    "loss": True,
    "loop": {"batch", "seed"},
}


def _recipe(config: TrainLatticeConfig, restart: bool, track: Track) -> Recipe:
    found = {
        "base": str(find_checkpoint(config.base).absolute()) if config.base else None,
        "guides": tuple(str(find_checkpoint(guide).absolute()) for guide in config.guides),
    }
    config = config.model_copy(update=found)
    return Recipe(
        config=config,
        work=LATTICE_WORK,
        prepare=lambda: _prepare(config, restart, track),
        export=lambda path, trained: _export(config, path, trained),
        decides=DECIDES,
    )


run = Run(_recipe)


def _prepare(config: TrainLatticeConfig, restart: bool, track: Track) -> Data:
    folder = data_folder(config)
    data = _make_data(config, folder, restart, track)
    return Data.of(data, folder, COLUMNS if config.pairs else ("pieces", "embedding"))


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
    """See that base and guides read what the teacher gives."""
    read = {guide: load_guide(guide)[1] for guide in config.guides}
    if config.base:
        load = load_mlp if config.model == "mlp" else load_lattice
        read[config.base] = load(config.base).teacher
    for name, teacher in read.items():
        if teacher != fingerprint:
            raise CellularError(
                f"{name} reads embeddings of {teacher}, not of {config.data.teacher.name} ({fingerprint}): "
                "train a new one"
            )


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
