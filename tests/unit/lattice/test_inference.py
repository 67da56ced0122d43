"""A lattice on arrays."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cellular.lattice import Lattice3D
from cellular.lattice.inference import ROWS, placed, process, with_steps
from cellular.types import FloatArray

NOTHING: FloatArray = np.empty((0, 24), np.float32)


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


def test_a_lattice_without_history_refuses_earlier_turns(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice, rows = make_lattice(), embeddings.numpy()
    np.testing.assert_array_equal(process(lattice, rows, [NOTHING] * 3), process(lattice, rows))
    with pytest.raises(ValueError, match="no history"):
        process(lattice, rows, [rows, NOTHING, NOTHING])


def test_each_row_has_the_turns_before_it_and_no_others(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice, rows = make_lattice(history=16), embeddings.numpy()
    together = process(lattice, rows, [rows[1:] * 3, NOTHING, rows[:1]])
    np.testing.assert_allclose(together[0], process(lattice, rows[:1], [rows[1:]])[0], atol=1e-5)
    np.testing.assert_allclose(together[1], process(lattice, rows[1:2])[0], atol=1e-5)
    with torch.inference_mode():
        alone = lattice(embeddings[2:], embeddings[None, :1])[0].numpy()
    np.testing.assert_allclose(together[2], alone, atol=1e-5)
    assert not np.allclose(together[2], process(lattice, rows[2:])[0], atol=1e-4)


def test_turns_must_be_of_as_many_rows(make_lattice: Callable[..., Lattice3D], embeddings: Tensor) -> None:
    with pytest.raises(ValueError, match="3 embeddings need as many lists"):
        process(make_lattice(history=16), embeddings.numpy(), [embeddings.numpy()])


def test_steps_can_be_changed(make_lattice: Callable[..., Lattice3D], embeddings: Tensor) -> None:
    lattice, rows = with_steps(make_lattice(), 7), embeddings.numpy()
    assert not np.allclose(process(lattice, rows), process(make_lattice(), rows), atol=1e-4)
    np.testing.assert_array_equal(process(lattice, rows), process(make_lattice(steps=7), rows))


def test_bfloat16_moves_no_answer_far(make_lattice: Callable[..., Lattice3D], embeddings: Tensor) -> None:
    settings = {"sweeps": ("raster", "hilbert"), "history": 16}
    rows = embeddings.numpy()
    exact, rounded = (
        process(placed(make_lattice(**settings), "cpu", precision), rows, [rows[1:], NOTHING, rows[:1]])
        for precision in ("fp32", "bf16")
    )
    assert exact.dtype == rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    assert (exact * rounded).sum(1).min() > 0.999
