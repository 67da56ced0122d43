"""How much candidates for one text agree: the expected similarity that minimum Bayes risk decoding maximises.

Kumar and Byrne 2004, Minimum Bayes-Risk Decoding for Statistical Machine Translation.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cellular.types import FloatArray

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import HashingVectorizer

FEATURES = 4096


def consensus(texts: Sequence[str], weights_C: FloatArray) -> FloatArray:
    """Mean similarity of each text to all, itself among them: the cosine of hashed n-grams of characters.

    Args:
        texts: C of them.
        weights_C: (C,) of each text in the mean; they sum to 1.

    Returns:
        (C,) float32, 0 to 1.
    """
    grams_CG = _vectorizer().transform(texts)
    mean_G = grams_CG.T @ weights_C
    shared_C: FloatArray = np.asarray(grams_CG @ mean_G, np.float32)
    return shared_C


@cache
def _vectorizer() -> "HashingVectorizer":
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        n_features=FEATURES, analyzer="char_wb", ngram_range=(2, 5), alternate_sign=False, dtype=np.float32
    )
