"""A lattice on arrays."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cellular.lattice import Lattice3D
from cellular.lattice.inference import ROWS, process


def test_arrays_get_what_tensors_get(make_lattice: Callable[..., Lattice3D], embeddings: Tensor) -> None:
    lattice = make_lattice()
    with torch.inference_mode():
        expected = lattice(embeddings).numpy()
    np.testing.assert_array_equal(process(lattice, embeddings.numpy()), expected)


def test_the_length_of_an_embedding_makes_no_difference(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice, rows = make_lattice(), embeddings.numpy()
    np.testing.assert_allclose(process(lattice, rows * 7), process(lattice, rows), atol=1e-6)


def test_rows_beyond_a_batch_are_processed_too(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice, rows = make_lattice(), embeddings.numpy()
    many = process(lattice, np.resize(rows, (ROWS + 1, rows.shape[1])))
    np.testing.assert_allclose(many[-1], process(lattice, rows)[ROWS % len(rows)], atol=1e-6)


def test_no_rows_give_no_rows(make_lattice: Callable[..., Lattice3D]) -> None:
    assert process(make_lattice(), np.empty((0, 24), np.float32)).shape == (0, 24)


def test_bad_embeddings_are_refused(make_lattice: Callable[..., Lattice3D]) -> None:
    with pytest.raises(ValueError, match="zero vector"):
        process(make_lattice(), np.zeros((1, 24), np.float32))
    with pytest.raises(ValueError, match="shape"):
        process(make_lattice(), np.ones((1, 25), np.float32))


def test_a_lattice_of_single_embeddings_refuses_earlier_turns(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice, rows = make_lattice(), embeddings.numpy()
    nothing = np.empty((0, 24), np.float32)
    np.testing.assert_array_equal(process(lattice, rows, [nothing] * 3), process(lattice, rows))
    with pytest.raises(ValueError, match="single embeddings"):
        process(lattice, rows, [rows, nothing, nothing])
