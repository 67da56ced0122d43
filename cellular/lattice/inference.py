"""A lattice on arrays: rows of float32 in, rows of float32 out, in batches that bound its memory.

Shapes: R rows, N earlier turns, E embedding dimension.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from cellular.checks import check_embeddings
from cellular.lattice.lattice import Lattice3D
from cellular.types import FloatArray

ROWS = 32  # at a time: a row of a default lattice takes 0.2 MB a step, and a sweep several times that


@torch.inference_mode()
def process(
    lattice: Lattice3D, embeddings: ArrayLike, earlier: Sequence[FloatArray] | None = None
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
    rows_RE = check_embeddings(embeddings, lattice.config.embedding_dimension)
    if earlier is not None and any(len(turns_NE) for turns_NE in earlier):
        raise ValueError("this lattice was made for single embeddings: give no earlier turns")
    device = next(lattice.parameters()).device
    result_RE = np.empty_like(rows_RE)
    for start in range(0, len(rows_RE), ROWS):
        some = slice(start, start + ROWS)
        result_RE[some] = lattice(torch.from_numpy(rows_RE[some]).to(device)).cpu().numpy()
    return result_RE


def with_steps(lattice: Lattice3D, steps: int) -> Lattice3D:
    """The lattice itself, from now on with another number of steps: all steps are by the same rule."""
    lattice.config = lattice.config.model_copy(update={"steps": steps})
    return lattice
