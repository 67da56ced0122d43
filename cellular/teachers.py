"""Teachers: models that turn text into the embeddings which everything else works on."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from cellular.config import TeacherConfig
from cellular.types import FloatArray


class Teacher(Protocol):
    """What a bank, a decoder or a server needs of an embedding model."""

    @property
    def name(self) -> str:
        """The name a person would type."""

    @property
    def dimension(self) -> int:
        """D of the vectors."""

    @property
    def fingerprint(self) -> str:
        """Names the embedding space: equal if and only if vectors can be compared. `NAME:16 hex digits`."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Returns:
            (N, D) float32, every row of unit length; (0, D) for no texts.
        """


class HashTeacher:
    """Feature hashing of character n-grams: deterministic, no model, for tests and dry runs.

    Texts that share words are near each other, so that search behaves as it does with a real teacher.
    Weinberger et al. 2009, Feature Hashing for Large Scale Multitask Learning.
    """

    def __init__(self, dimension: int = 256) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.name = "hash"
        self.dimension = dimension
        self.fingerprint = f"hash:{dimension:016x}"
        self._vectorizer = HashingVectorizer(
            n_features=dimension, analyzer="char_wb", ngram_range=(3, 5), norm=None, dtype=np.float32
        )

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        vectors: FloatArray = self._vectorizer.transform(texts).toarray()
        vectors[~vectors.any(axis=1), 0] = 1.0  # nothing to hash: a direction of its own, never a zero vector
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


TEACHERS: dict[str, Callable[[TeacherConfig], Teacher]] = {
    "hash": lambda config: HashTeacher(),
}


def load_teacher(config: TeacherConfig | str) -> Teacher:
    """The teacher that a configuration or a name asks for."""
    config = TeacherConfig(name=config) if isinstance(config, str) else config
    return TEACHERS[config.name](config)
