"""Checks of arrays that come from outside."""

import numpy as np
from numpy.typing import ArrayLike

from cellular.types import FloatArray

UNIT_TOLERANCE = 1e-6  # of a squared length
_FLOAT32 = np.dtype(np.float32)


def check_embeddings(embeddings: ArrayLike, dimension: int) -> FloatArray:
    """Validate embeddings and scale them to unit length; never changes the input, but may return it.

    Args:
        embeddings: (N, D) or one (D,), of a floating dtype.
        dimension: the D that is expected.

    Returns:
        (N, D) float32, C-contiguous, every row of unit length: the input's own memory if it is that already.

    Raises:
        ValueError: wrong dtype or shape, NaN, infinity or a zero vector; names the row.
    """
    array = np.asarray(embeddings)
    if array.dtype.kind != "f":
        raise ValueError(f"embeddings must be floating point, not {array.dtype}")
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2 or array.shape[1] != dimension:
        shape = np.shape(embeddings)
        raise ValueError(f"embeddings must have shape (N, {dimension}) or ({dimension},), not {shape}")
    if array.dtype == _FLOAT32 and array.flags.c_contiguous and _is_unit(array):
        return array
    wide = array.astype(np.float64)  # squares of float32 neither overflow nor vanish in it
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    if not 0 < lengths.min(initial=1) <= lengths.max(initial=1) < np.inf:  # false for NaN too
        _refuse(array, lengths)
    wide /= lengths[:, np.newaxis]
    return wide.astype(np.float32, order="C")


def _is_unit(array: FloatArray) -> bool:
    if len(array) == 1:  # what a decoder asks most often, in a tenth of the time
        row = array[0]
        return abs(float(row.dot(row)) - 1) < UNIT_TOLERANCE
    squares = np.einsum("nd,nd->n", array, array)
    return bool((np.abs(squares - 1) < UNIT_TOLERANCE).all())  # false for NaN


def _refuse(array: FloatArray, lengths: FloatArray) -> None:
    row = int(np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))[0])
    if lengths[row] == 0:
        raise ValueError(f"embedding in row {row} is a zero vector: it has no direction")
    bad = ~np.isfinite(array[row])
    if not bad.any():
        raise ValueError(f"embedding in row {row} is too long to be scaled to unit length")
    column = int(np.flatnonzero(bad)[0])
    raise ValueError(f"embedding in row {row} holds {array[row, column]} at position {column}")
