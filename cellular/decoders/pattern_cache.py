"""The answers given lately, keyed by everything that decides an answer."""

import threading
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from cachetools import LRUCache

from cellular.types import FloatArray

CELLS_PER_UNIT = 8  # coarse, so that rounding noise rarely moves a component to the next cell
SAME_DISTANCE = 1e-5  # squared; above what float16 or bfloat16 rounding does to a unit vector

Answer = TypeVar("Answer")


class PatternKey(NamedTuple):
    """The quantised embedding (int8 bytes) and all else that changes the answer."""

    cells: bytes
    setup: bytes
    session: bytes


class PatternCache(Generic[Answer]):
    """Thread-safe LRU of answers.

    The quantised embedding only finds the entry; it is a hit where the embedding itself agrees with the
    stored one up to rounding, so that two embeddings in one cell never share an answer.
    """

    def __init__(self, size: int) -> None:
        self._entries: LRUCache[PatternKey, tuple[FloatArray, Answer]] = LRUCache(size)
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def key(self, embedding: FloatArray, setup: bytes, session: bytes) -> PatternKey:
        """Key of an embedding (D,) under a digest of configuration and bank, and one of the session."""
        return PatternKey(np.rint(embedding * CELLS_PER_UNIT).astype(np.int8).tobytes(), setup, session)

    def get(self, key: PatternKey, embedding: FloatArray) -> Answer | None:
        """The answer kept for this embedding (D,), or None."""
        with self._lock:
            entry = self._entries.get(key)
        hit = entry is not None and is_same(entry[0], embedding)
        with self._lock:
            self._hits += hit
            self._misses += not hit
        return entry[1] if entry is not None and hit else None

    def put(self, key: PatternKey, embedding: FloatArray, answer: Answer) -> None:
        """Keep an answer; the least recently used one makes room."""
        with self._lock:
            self._entries[key] = (embedding.copy(), answer)  # a row's view would keep its whole batch alive

    def statistics(self) -> dict[str, Any]:
        """Hits, misses, their rate, and how full the cache is."""
        with self._lock:
            asked = self._hits + self._misses
            return {
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / asked if asked else 0.0,
                "size": len(self._entries),
                "capacity": int(self._entries.maxsize),
            }


def is_same(a: FloatArray, b: FloatArray) -> bool:
    """Whether two unit vectors (D,) differ by no more than rounding."""
    difference = a - b
    return bool(difference @ difference <= SAME_DISTANCE)
