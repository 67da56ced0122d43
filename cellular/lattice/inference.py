"""A lattice on arrays: rows of float32 in, rows of float32 out, in batches that bound its memory.

Shapes: R rows, N earlier turns, E embedding dimension.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cellular.checks import check_embeddings
from cellular.config import Device, LatticePrecision
from cellular.devices import fast_dtype
from cellular.lattice.lattice import Lattice3D
from cellular.types import FloatArray

ROWS = 32  # at a time: a row of a default lattice takes 0.2 MB a step, and a sweep several times that


def placed(lattice: Lattice3D, device: Device = "auto", precision: LatticePrecision = "auto") -> Lattice3D:
    """The lattice itself, on a device, with weights and states of a precision.

    Args:
        lattice: is changed.
        device: auto: a GPU where there is one.
        precision: of states and weights; sums of products and of scans are float32. auto: bf16, in which
            lattices are trained, where the device multiplies it faster than float32.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = {"auto": fast_dtype(device), "fp32": torch.float32, "bf16": torch.bfloat16}
    return lattice.to(device, dtypes[precision])


@torch.inference_mode()
def process(
    lattice: Lattice3D, embeddings: ArrayLike, earlier: Sequence[ArrayLike] | None = None
) -> FloatArray:
    """What a lattice makes of embeddings.

    Args:
        lattice: set to evaluate.
        embeddings: (R, E) or one (E,), of a floating dtype; any length, only the direction counts.
        earlier: for each row the embeddings (N, E) of the turns before it, oldest first; N may be 0.

    Returns:
        (R, E) float32, every row of unit length.

    Raises:
        ValueError: wrong shape or dtype, NaN, infinity, a zero vector; turns for a lattice without history.
    """
    dimension, device = lattice.config.embedding_dimension, next(lattice.parameters()).device
    rows_RE = check_embeddings(embeddings, dimension)
    turns = _check_turns(lattice, earlier, len(rows_RE))
    result_RE = np.empty_like(rows_RE)
    for start in range(0, len(rows_RE), ROWS):
        some = slice(start, start + ROWS)
        history = tuple(part.to(device) for part in _aligned(turns[some], dimension)) if turns else ()
        result_RE[some] = lattice(torch.tensor(rows_RE[some], device=device), *history).cpu().numpy()
    return result_RE


def _check_turns(lattice: Lattice3D, earlier: Sequence[ArrayLike] | None, rows: int) -> list[FloatArray]:
    """The turns before each row, of unit length; none of no row where none has any."""
    if earlier is None or not any(map(np.size, earlier)):
        return []
    if lattice.history is None:
        raise ValueError("this lattice has no history: give no earlier turns")
    if len(earlier) != rows:
        raise ValueError(f"{rows} embeddings need as many lists of earlier turns, not {len(earlier)}")
    dimension = lattice.config.embedding_dimension
    nothing: FloatArray = np.empty((0, dimension), np.float32)
    return [check_embeddings(turns, dimension) if np.size(turns) else nothing for turns in earlier]


def _aligned(turns: Sequence[FloatArray], dimension: int) -> tuple[Tensor, Tensor]:
    """Turns of several rows side by side, (R, N, E), the newest last; and which there are, (R, N) bool."""
    longest = max(map(len, turns))
    earlier_RNE = torch.zeros(len(turns), longest, dimension)
    present_RN = torch.zeros(len(turns), longest, dtype=torch.bool)
    for row, turns_NE in enumerate(turns):
        if len(turns_NE):
            earlier_RNE[row, -len(turns_NE) :] = torch.tensor(turns_NE)
            present_RN[row, -len(turns_NE) :] = True
    return earlier_RNE, present_RN


def with_steps(lattice: Lattice3D, steps: int) -> Lattice3D:
    """The lattice itself, from now on with another number of steps: all steps are by the same rule."""
    lattice.config = lattice.config.model_copy(update={"steps": steps})
    return lattice
