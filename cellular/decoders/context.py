"""A session's earlier texts, and how likely they make each candidate."""

import base64
import binascii
import hashlib
import math
from collections import Counter
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, field_validator

from cellular.bank import PhraseBank
from cellular.decoders.assembly import Pool
from cellular.decoders.postprocess import words
from cellular.types import FloatArray


class Turn(BaseModel):
    """An earlier embedding, as base64 of little-endian float16, and its text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding: str
    text: str

    @field_validator("embedding")
    @classmethod
    def _is_float16(cls, value: str) -> str:
        try:
            if not np.isfinite(np.frombuffer(base64.b64decode(value, validate=True), "<f2")).all():
                raise ValueError("embedding of a turn holds NaN or infinity")
        except binascii.Error as error:
            raise ValueError("embedding of a turn must be base64 of float16 values") from error
        return value

    @classmethod
    def of(cls, embedding: FloatArray, text: str) -> "Turn":
        """Pack an embedding (D,)."""
        return cls(embedding=base64.b64encode(embedding.astype("<f2").tobytes()).decode(), text=text)

    def vector(self) -> FloatArray:
        """(D,) float32."""
        return np.frombuffer(base64.b64decode(self.embedding), "<f2").astype(np.float32)


class Session(BaseModel):
    """The latest turns of a dialogue, oldest first: immutable, and JSON through pydantic.

    A decoder's answer depends on it only through `digest`: who keeps sessions is up to the caller.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: tuple[Turn, ...] = ()
    capacity: PositiveInt = 8

    def after(self, embedding: FloatArray, text: str) -> "Session":
        """The session once `text` was said; the oldest turn is forgotten beyond the capacity."""
        turns = (*self.turns, Turn.of(embedding, text))
        return Session(turns=turns[-self.capacity :], capacity=self.capacity)

    def latest(self, turns: int) -> "Session":
        """The session as it is remembered with fewer turns."""
        return self if len(self.turns) <= turns else self.model_copy(update={"turns": self.turns[-turns:]})

    @cached_property
    def digest(self) -> bytes:
        """Equal if and only if the turns are."""
        return hashlib.blake2b(self.model_dump_json(include={"turns"}).encode(), digest_size=16).digest()


EMPTY_SESSION = Session()

RECENCY = 0.8  # weight of a turn relative to the one after it
MEAN_WEIGHT, MAX_WEIGHT, OVERLAP_WEIGHT = 0.5, 0.5, 1.0
SAMPLE = 20_000  # phrases that word rarity is estimated from


class ContextPrior:
    """Scores candidates by their likeness to a session's turns. Knows nothing of the corpus' order."""

    def __init__(self, bank: PhraseBank) -> None:
        self._bank = bank

    @cached_property
    def _rarity(self) -> tuple[Counter[str], int]:
        rows = np.unique(np.linspace(0, len(self._bank) - 1, SAMPLE).astype(np.int64))
        counts = Counter(word for phrase in self._bank.phrases(rows) for word in set(words(phrase)))
        return counts, len(rows)

    def __call__(self, pool: Pool, session: Session) -> FloatArray:
        """(P,) float32: about 0 for a stranger, about 1 for what was just said."""
        turns = np.stack([turn.vector() for turn in session.turns])
        likeness = pool.vectors @ turns.T
        recency = RECENCY ** np.arange(len(turns) - 1, -1, -1, dtype=np.float32)
        prior = MEAN_WEIGHT * likeness @ (recency / recency.sum()) + MAX_WEIGHT * (likeness * recency).max(1)
        return np.asarray(prior + OVERLAP_WEIGHT * self._overlap(pool.phrases, session), np.float32)

    def _overlap(self, phrases: list[str], session: Session) -> FloatArray:
        """(P,) share of each phrase's words, by rarity, that the session has said."""
        said = {word for turn in session.turns for word in words(turn.text)}
        return np.array([self._share(words(phrase), said) for phrase in phrases], np.float32)

    def _share(self, spoken: list[str], said: set[str]) -> float:
        counts, total = self._rarity
        rarity = {word: math.log((total + 1) / (counts[word] + 1)) for word in set(spoken)}
        whole = sum(rarity.values())
        return sum(value for word, value in rarity.items() if word in said) / whole if whole else 0.0
