"""How much candidates for one text agree: the expected similarity that minimum Bayes risk decoding maximises.

Kumar and Byrne 2004, Minimum Bayes-Risk Decoding for Statistical Machine Translation.
"""

from collections.abc import Sequence

import numpy as np

from cellular.ngrams import count_ngrams
from cellular.types import FloatArray

FEATURES = 4096


def consensus(texts: Sequence[str], weights_C: FloatArray) -> FloatArray:
    """Mean similarity of each text to all, itself among them: the cosine of hashed n-grams of characters.

    Args:
        texts: C of them.
        weights_C: (C,) of each text in the mean; they sum to 1.

    Returns:
        (C,) float32, 0 to 1.
    """
    grams_CG = count_ngrams(texts, FEATURES, range(2, 6), signed=False)
    grams_CG /= np.maximum(np.linalg.norm(grams_CG, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    mean_G = grams_CG.T @ weights_C
    shared_C: FloatArray = np.asarray(grams_CG @ mean_G, np.float32)
    return shared_C
