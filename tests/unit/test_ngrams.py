"""Hashed n-grams against those that scikit-learn counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from cellular.ngrams import count_ngrams

FEATURES = 1 << 16
TEXTS = ["A man sits.", "two  dogs\trun; é 中文字 🙂 x", "", "  ", "aaaa bb c", "Hello World" * 20] * 250
SIZES = [range(3, 6), range(2, 6), range(2, 3)]


@pytest.mark.parametrize("sizes", SIZES)
def test_what_texts_share_is_what_they_share_in_exact_counts(sizes: range) -> None:
    exact_NG = CountVectorizer(
        analyzer="char_wb", ngram_range=(sizes.start, sizes.stop - 1), dtype=np.float32
    ).fit_transform(TEXTS)
    counts_NF = count_ngrams(TEXTS, FEATURES, sizes, signed=False)
    assert counts_NF.dtype == np.float32
    assert np.array_equal(counts_NF[:6] @ counts_NF.T, (exact_NG[:6] @ exact_NG.T).toarray())


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_a_text_has_the_same_row_alone_whatever_it_is(texts: list[str]) -> None:
    rows = count_ngrams(texts, 64, range(3, 6), signed=True)
    assert rows.shape == (len(texts), 64)
    for text, row in zip(texts, rows, strict=True):
        assert np.array_equal(count_ngrams([text], 64, range(3, 6), signed=True)[0], row)


def test_signs_make_unrelated_texts_orthogonal_on_average() -> None:
    texts = [" ".join(f"{number * 7919 + place:x}" for place in range(0, 5000, 97)) for number in range(60)]
    rows = count_ngrams(texts, 256, range(3, 6), signed=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    others = (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
    assert abs(others.mean()) < 0.1
    assert abs((rows > 0).mean() - (rows < 0).mean()) < 0.05
