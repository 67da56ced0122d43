"""The answers given lately, keyed by everything that decides an answer."""

import threading
from collections import OrderedDict
from typing import Any, Generic, TypeVar

import numpy as np

from cellular.types import FloatArray

CELL = 0.02  # of a component: hundreds of times what rounding to float16 does to it
SAMPLED = 24  # components in a key: enough to tell embeddings apart, few enough for plain numbers
SAME_DISTANCE = 1e-5  # squared; above what float16 or bfloat16 rounding does to a unit vector

Answer = TypeVar("Answer")


PatternKey = tuple[tuple[int, ...], bytes, bytes]  # quantised embedding; digests of all else that counts


class PatternCache(Generic[Answer]):
    """Thread-safe LRU of answers.

    The quantised embedding only finds the entry; it is a hit where the embedding itself agrees with the
    stored one up to rounding, so that two embeddings in one cell never share an answer.
    """

    def __init__(self, size: int) -> None:
        self._entries: OrderedDict[PatternKey, tuple[bytes, Answer]] = OrderedDict()
        self._size = size
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def key(self, embedding: FloatArray, setup: bytes, session: bytes) -> PatternKey:
        """Key of an embedding (D,) under a digest of configuration and bank, and one of the session."""
        sample = embedding[:: max(1, len(embedding) // SAMPLED)].tolist()
        return tuple([int(value / CELL) for value in sample]), setup, session

    def get(self, key: PatternKey, embedding: FloatArray) -> Answer | None:
        """The answer kept for this embedding (D,), or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and is_same(np.frombuffer(entry[0], np.float32), embedding):
                self._entries.move_to_end(key)
                self._hits += 1
                return entry[1]
            self._misses += 1
            return None

    def put(self, key: PatternKey, embedding: FloatArray, answer: Answer) -> None:
        """Keep an answer; the least recently used one makes room."""
        with self._lock:
            self._entries[key] = (embedding.tobytes(), answer)  # a row's view would keep its batch alive
            self._entries.move_to_end(key)
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def statistics(self) -> dict[str, Any]:
        """Hits, misses, their rate, and how full the cache is."""
        with self._lock:
            asked = self._hits + self._misses
            return {
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / asked if asked else 0.0,
                "size": len(self._entries),
                "capacity": self._size,
            }


def is_same(a: FloatArray, b: FloatArray) -> bool:
    """Whether two unit vectors (D,) differ by no more than rounding."""
    difference = a - b
    return bool(difference @ difference <= SAME_DISTANCE)
