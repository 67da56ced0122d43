"""Hashed character n-grams: Weinberger et al. 2009, Feature Hashing for Large Scale Multitask Learning.

The n-grams of scikit-learn's HashingVectorizer with `analyzer="char_wb"`, which takes a process more than two
seconds to import, and three times as long to count.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cellular.types import FloatArray

_TEXTS_AT_ONCE = 1024
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def count_ngrams(texts: Sequence[str], features: int, sizes: range, *, signed: bool) -> FloatArray:
    """How often each n-gram is in each text; n-grams of one hash share a column.

    Words are in lower case, each between two spaces, and n-grams do not reach into other words.

    Args:
        texts: N of them, of whole Unicode characters.
        features: F, numbers a text.
        sizes: characters of an n-gram, two or more, in steps of 1.
        signed: half of the hashes count down, so that those that share a column cancel out on average.

    Returns:
        (N, F) float32.
    """
    counts_NF = np.zeros((len(texts), features), np.float32)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some_NF = counts_NF[start : start + _TEXTS_AT_ONCE]
        for row, hashes in _hashes(texts[start : start + _TEXTS_AT_ONCE], sizes):
            weights = 1.0 - 2.0 * (hashes >> np.uint64(63)) if signed else None
            columns = (hashes & np.uint64(0xFFFFFFFF)) % np.uint64(features)
            places = row * features + columns.astype(np.int64)
            some_NF += np.bincount(places, weights, some_NF.size).reshape(some_NF.shape)
    return counts_NF


def _hashes(texts: Sequence[str], sizes: range) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """Of all n-grams of a size the rows and the hashes (FNV-1a over characters, then mixed)."""
    words = [(row, f" {word} ") for row, text in enumerate(texts) for word in text.lower().split()]
    characters = "".join(word for _, word in words).encode("utf-32-le")
    letters = np.frombuffer(characters, np.uint32).astype(np.uint64)
    lengths = np.array([len(word) for _, word in words], np.int64)
    word_of = np.repeat(np.arange(len(words)), lengths)
    row_of = np.repeat(np.array([row for row, _ in words], np.int64), lengths)
    hashes = np.full(len(letters), _FNV_OFFSET)
    for size in range(1, sizes.stop):
        count = max(0, len(letters) - size + 1)
        hashes = (hashes[:count] ^ letters[size - 1 :]) * _FNV_PRIME
        if size in sizes:
            whole = word_of[:count] == word_of[size - 1 :]
            mixed = hashes[whole]
            mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
            yield row_of[:count][whole], mixed ^ (mixed >> np.uint64(29))
