"""Orders in which a sweep visits the cells of a lattice."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from cellular.lattice.perceive import Size
from cellular.types import IntArray

_Vector = IntArray  # (3,): a cell, or an edge of a box along one axis


def raster(size: Size) -> IntArray:
    """Layer by layer from the input face, z fastest: the order in memory."""
    return np.arange(np.prod(size))


def columns(size: Size) -> IntArray:
    """From face to face along x, column by column."""
    return raster(size).reshape(size).transpose(1, 2, 0).ravel()


def hilbert(size: Size) -> IntArray:
    """A Hilbert curve, generalised to any box (Červený 2019): cells near on the curve are near in space.

    Along the longest axis it leads from one face to the other, x first among equals. With even sides every
    move is across a face; an odd side may cost a diagonal move.
    """
    axes = sorted(range(3), key=lambda axis: -size[axis])
    a, b, c = (np.eye(3, dtype=np.int64)[axis] * size[axis] for axis in axes)
    cells = np.array(list(_hilbert(np.zeros(3, np.int64), a, b, c)))
    return np.asarray(np.ravel_multi_index(tuple(cells.T), size), np.int64)


ORDERS: Final[dict[str, Callable[[Size], IntArray]]] = {
    "raster": raster,
    "columns": columns,
    "hilbert": hilbert,
}


def _hilbert(start: _Vector, a: _Vector, b: _Vector, c: _Vector) -> Iterator[_Vector]:
    """Cells of the box with edges a, b, c at `start`, along a from its first to its last layer."""
    da, db, dc = np.sign(a), np.sign(b), np.sign(c)
    sides = [int(np.abs(edge).sum()) for edge in (a, b, c)]
    length, height, depth = sides
    if sorted(sides)[1] == 1:  # a line
        along = (da, db, dc)[int(np.argmax(sides))]
        yield from (start + number * along for number in range(max(sides)))
        return
    a2, b2, c2 = (_half(edge) for edge in (a, b, c))
    if 2 * length > 3 * height and 2 * length > 3 * depth:  # long: two boxes, end to end
        parts = [(start, a2, b, c), (start + a2, a - a2, b, c)]
    elif 3 * height > 4 * depth:  # flat: a U in the plane of a and b
        parts = [
            (start, b2, c, a2),
            (start + b2, a, b - b2, c),
            (start + (a - da) + (b2 - db), -b2, c, -(a - a2)),
        ]
    elif 3 * depth > 4 * height:  # flat: a U in the plane of a and c
        parts = [
            (start, c2, a2, b),
            (start + c2, a, b, c - c2),
            (start + (a - da) + (c2 - dc), -c2, -(a - a2), b),
        ]
    else:  # about a cube: up, along, and down again
        parts = [
            (start, b2, c2, a2),
            (start + b2, c, a2, b - b2),
            (start + (b2 - db) + (c - dc), a, -b2, -(c - c2)),
            (start + (a - da) + b2 + (c - dc), -c, -(a - a2), b - b2),
            (start + (a - da) + (b2 - db), -b2, c2, -(a - a2)),
        ]
    for part in parts:
        yield from _hilbert(*part)


def _half(edge: _Vector) -> _Vector:
    """About half an edge, of an even length if the edge is longer than two."""
    half: _Vector = np.sign(edge) * (np.abs(edge) // 2)
    if np.abs(half).sum() % 2 and np.abs(edge).sum() > 2:
        half = half + np.sign(edge)
    return half
