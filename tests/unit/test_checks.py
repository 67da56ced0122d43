import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellular.checks import check_embeddings

FINITE = st.floats(-(2.0**127), 2.0**127, width=32)


@given(arrays(np.float32, (3, 4), elements=FINITE))
def test_every_finite_vector_is_scaled_to_unit_length_or_is_zero(vectors):
    if not vectors.any(axis=1).all():
        with pytest.raises(ValueError, match=r"row \d is a zero vector"):
            check_embeddings(vectors, 4)
        return
    scaled = check_embeddings(vectors, 4)
    assert scaled.dtype == np.float32 and scaled.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-5)


def test_the_input_is_copied_never_changed():
    vectors = np.full((2, 3), 2, np.float32)
    vectors.flags.writeable = False
    assert not np.shares_memory(check_embeddings(vectors, 3), vectors)
    assert (vectors == 2).all()


def test_one_vector_becomes_one_row():
    assert check_embeddings([3.0, 4.0], 2).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_any_floating_dtype_is_accepted(dtype):
    assert check_embeddings(np.ones((2, 4), dtype), 4).dtype == np.float32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 3), np.int64), "not int64"),
        ([["a", "b", "c"]], "not <U1"),
        (np.array([None, None, None]), "not object"),
        (np.ones((2, 4)), r"not \(2, 4\)"),
        (np.ones((1, 2, 3)), r"not \(1, 2, 3\)"),
        (np.float32(1), r"not \(\)"),
        ([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]], "row 1 holds nan at position 1"),
        ([[np.inf, 2.0, 3.0]], "row 0 holds inf at position 0"),
        ([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], "row 1 is a zero vector"),
        ([[1e300, 1e300, 0.0]], "row 0 is too long"),
    ],
)
def test_an_invalid_array_is_refused_by_name_and_place(value, message):
    with pytest.raises(ValueError, match=message):
        check_embeddings(value, 3)
