"""Orders visit every cell once, and Hilbert's moves are short."""

import numpy as np
import pytest

from cellular.lattice.orders import ORDERS, hilbert
from cellular.lattice.perceive import Size

SIZES: list[Size] = [(8, 8, 8), (2, 2, 2), (4, 6, 8), (8, 4, 2), (16, 16, 16), (1, 8, 6), (1, 1, 5)]


@pytest.mark.parametrize("size", [*SIZES, (5, 5, 5), (7, 8, 3)])
@pytest.mark.parametrize("name", ORDERS)
def test_every_cell_is_visited_once(name: str, size: Size) -> None:
    assert sorted(ORDERS[name](size)) == list(range(int(np.prod(size))))


@pytest.mark.parametrize("size", SIZES)
def test_hilbert_moves_to_a_neighbour_each_time(size: Size) -> None:
    cells = np.stack(np.unravel_index(hilbert(size), size), 1)
    assert (np.abs(np.diff(cells, axis=0)).sum(1) == 1).all()


def test_hilbert_leads_from_the_input_face_to_the_output_face() -> None:
    order = hilbert((8, 8, 8))
    assert (order[0] // 64, order[-1] // 64) == (0, 7)


def test_cells_near_on_a_hilbert_curve_are_nearer_in_space_than_on_a_raster() -> None:
    def spread(order: np.ndarray) -> float:
        cells = np.stack(np.unravel_index(order, (8, 8, 8)), 1).astype(float)
        return float(np.linalg.norm(cells[32:] - cells[:-32], axis=1).mean())

    assert spread(hilbert((8, 8, 8))) < spread(ORDERS["raster"]((8, 8, 8)))


def test_columns_follow_x_first() -> None:
    assert ORDERS["columns"]((2, 1, 3)).tolist() == [0, 3, 1, 4, 2, 5]
