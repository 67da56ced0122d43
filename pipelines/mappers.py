"""What makes embeddings of embeddings, each as one function: baselines, lattices and MLPs of checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cellular.checkpoint_files import find_checkpoint
from cellular.errors import CellularError
from cellular.lattice import count_parameters
from cellular.lattice.inference import placed, process
from cellular.mapping_checkpoint import load_lattice_or_mlp
from cellular.mlp import MLPCheckpoint
from cellular.types import FloatArray
from pipelines.mapping_data import MappingTest

RIDGE = (0.1, 1.0, 10.0, 100.0)  # strengths that are tried on a tenth of what is fitted

Earlier = Sequence[FloatArray] | None
Map = Callable[[FloatArray, Earlier], FloatArray]


@dataclass(frozen=True)
class Mapper:
    """Something that makes embeddings of embeddings.

    Attributes:
        name: as the table shows it.
        map: (R, E) float32 of unit length, and what came before each or None, to (R, E) of any length.
        parameters: how many it has.
        history: whether it reads what came before.
        about: what it is made of, for the reader of a report.
    """

    name: str
    map: Map
    parameters: int = 0
    history: bool = False
    about: dict[str, str] = field(default_factory=dict)


def identity() -> Mapper:
    """What is read is the answer."""
    return Mapper("identity", lambda sources, earlier: sources)


def mean(fitted: MappingTest) -> Mapper:
    """The mean of the targets is the answer to everything."""
    middle: FloatArray = fitted.targets.mean(axis=0)
    about = {"fitted": f"on {len(fitted.targets):,} targets"}

    def answer(sources: FloatArray, earlier: Earlier) -> FloatArray:
        return np.broadcast_to(middle, sources.shape)

    return Mapper("mean", answer, len(middle), about=about)


def ridge(fitted: MappingTest) -> Mapper:
    """Ridge regression on the source and, where something came before, on the mean of that (Hoerl 1970)."""
    history = fitted.earlier is not None
    inputs, targets = _inputs(fitted.sources, fitted.earlier), fitted.targets
    kept = round(0.9 * len(inputs))
    strength = max(RIDGE, key=lambda value: _gain(inputs, targets, kept, value))
    weights = _solve(inputs, targets, strength)
    about = {"fitted": f"on {len(inputs):,} pairs, strength {strength:g}"}

    def predict(sources: FloatArray, earlier: Earlier) -> FloatArray:
        """A lack of history is an empty one."""
        given = [sources[:0]] * len(sources) if history and earlier is None else earlier
        answer: FloatArray = _inputs(sources, given) @ weights
        return answer

    return Mapper("ridge", predict, weights.size, history, about)


def checkpoint_mapper(name: str, teacher: str) -> Mapper:
    """The lattice or the MLP of a checkpoint: packaged, by name, or in a folder.

    Raises:
        CellularError: there is none, or it reads another teacher's embeddings.
    """
    folder = find_checkpoint(name)
    checkpoint = load_lattice_or_mlp(folder)
    made, facts = checkpoint.teacher, checkpoint.training
    if isinstance(checkpoint, MLPCheckpoint):
        mlp = checkpoint.mlp
        run: Map = lambda sources, earlier: _run(mlp, sources, earlier)  # noqa: E731
        parameters = sum(weight.numel() for weight in mlp.parameters())
        history = bool(mlp.config.history)
    else:
        lattice = placed(checkpoint.lattice)
        run = lambda sources, earlier: process(lattice, sources, earlier)  # noqa: E731
        parameters = count_parameters(lattice)["all"]
        history = lattice.config.history is not None
    if made != teacher:
        raise CellularError(f"{name} reads embeddings of {made}, not of {teacher}: choose another checkpoint")
    about = {key: str(value) for key, value in facts.items() if key in ("objective", "steps", "command")}
    return Mapper(_label(name, folder), run, parameters, history, about)


def _label(name: str, folder: Path) -> str:
    """A folder that trainings call `checkpoint` is told by the one above it."""
    return folder.parent.name if folder.name == "checkpoint" else folder.name


@torch.inference_mode()
def _run(model: torch.nn.Module, sources: FloatArray, earlier: Earlier) -> FloatArray:
    if earlier is None:
        result: FloatArray = model(torch.from_numpy(sources)).numpy()
        return result
    turns = max(1, max(len(some) for some in earlier))
    padded = np.zeros((len(sources), turns, sources.shape[1]), np.float32)
    present = np.zeros((len(sources), turns), bool)
    for row, some in enumerate(earlier):
        padded[row, turns - len(some) :], present[row, turns - len(some) :] = some, True
    answer: FloatArray = model(*map(torch.from_numpy, (sources, padded, present))).numpy()
    return answer


def _inputs(sources: FloatArray, earlier: Earlier) -> FloatArray:
    """(R, E) or (R, 2 E), and a column of ones."""
    parts = [sources, np.ones((len(sources), 1), np.float32)]
    if earlier is not None:
        zero = np.zeros(sources.shape[1], np.float32)
        parts.insert(1, np.stack([some.mean(axis=0) if len(some) else zero for some in earlier]))
    return np.concatenate(parts, axis=1)


def _solve(inputs: FloatArray, targets: FloatArray, strength: float) -> FloatArray:
    gram = inputs.T @ inputs + strength * np.eye(inputs.shape[1], dtype=np.float32)
    weights: FloatArray = np.linalg.solve(gram, inputs.T @ targets)
    return weights


def _gain(inputs: FloatArray, targets: FloatArray, kept: int, strength: float) -> float:
    """Mean cosine on what was not fitted."""
    found = inputs[kept:] @ _solve(inputs[:kept], targets[:kept], strength)
    return float(((found * targets[kept:]).sum(1) / np.linalg.norm(found, axis=1)).mean())
