"""A session's earlier texts, and how likely they make each candidate."""

import base64
import binascii
import hashlib
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from functools import cached_property
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, field_validator

from cellular.bank import PhraseBank
from cellular.decoders.assembly import Pool
from cellular.decoders.postprocess import TERMINAL, words
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

    @property
    def dimension(self) -> int:
        """D of the embedding."""
        return (len(self.embedding) * 3 // 4 - self.embedding[-2:].count("=")) // 2

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

    def check(self, dimension: int) -> None:
        """Refuse turns of another embedding space: ValueError."""
        for number, turn in enumerate(self.turns):
            if turn.dimension != dimension:
                raise ValueError(f"session turn {number} has {turn.dimension} dimensions, not {dimension}")

    def latest(self, turns: int) -> "Session":
        """The session as it is remembered with fewer turns."""
        return self if len(self.turns) <= turns else self.model_copy(update={"turns": self.turns[-turns:]})

    @cached_property
    def digest(self) -> bytes:
        """Equal if and only if the turns are."""
        return hashlib.blake2b(self.model_dump_json(include={"turns"}).encode(), digest_size=16).digest()


EMPTY_SESSION = Session()

SAMPLE = 20_000  # phrases that rarity is estimated from
START, END = "^", "$"
_TOKENS = re.compile(r"\w+|[^\w\s]")

# Fitted by conditional logistic regression on dialogues of the validation set, scaled to sum to 1: which of
# several phrases with nearly the same embedding was said? Mostly the one in the session's own manner.
LIKENESS, WORDS, PAIRS, OPENING, ENDING = 0.10, 0.13, 0.35, 0.25, 0.17


class Rarity:
    """Inverse document frequency of words or pairs, estimated from a sample of phrases."""

    def __init__(self, documents: Iterable[set[Hashable]]) -> None:
        counts: Counter[Hashable] = Counter()
        total = 1
        for features in documents:
            counts.update(features)
            total += 1
        self._weights = {feature: math.log(total / (count + 1)) for feature, count in counts.items()}
        self._unseen = math.log(total)

    def share(self, features: set[Hashable], said: set[Hashable]) -> float:
        """How much of the features, by rarity, has been said: 0 to 1."""
        total = self._sum(features)
        return self._sum(features & said) / total if total else 0.0

    def _sum(self, features: set[Hashable]) -> float:
        # fsum is exact: the order of a set, which differs between processes, does not matter
        return math.fsum(self._weights.get(feature, self._unseen) for feature in features)


class ContextPrior:
    """How well phrases go with what a session said: meaning, words, word pairs, casing and punctuation.

    A cache language model's idea (Kuhn and De Mori 1990), over candidates instead of words. It reads the
    phrases alone: neither their place in the corpus nor their neighbours there.
    """

    def __init__(self, bank: PhraseBank) -> None:
        self._bank = bank

    def __call__(self, pool: Pool, session: Session) -> FloatArray:
        """(P,) float32 for a session of at least one turn: 0 for what does not fit it, 1 for what does."""
        likeness = pool.vectors @ np.mean([turn.vector() for turn in session.turns], axis=0)
        texts = [turn.text for turn in session.turns]
        words_said = set[Hashable]().union(*map(word_set, texts))
        pairs_said = set[Hashable]().union(*map(pair_set, texts))
        opened = np.mean([opens_as_sentence(text) for text in texts])
        ended = np.mean([ends_as_sentence(text) for text in texts])
        words, pairs = self._rarities
        manner = [
            WORDS * words.share(word_set(phrase), words_said)
            + PAIRS * pairs.share(pair_set(phrase), pairs_said)
            + OPENING * (opened if opens_as_sentence(phrase) else 1 - opened)
            + ENDING * (ended if ends_as_sentence(phrase) else 1 - ended)
            for phrase in pool.phrases
        ]
        return np.asarray(LIKENESS * likeness + manner, np.float32)

    @cached_property
    def _rarities(self) -> tuple[Rarity, Rarity]:
        rows = np.unique(np.linspace(0, len(self._bank) - 1, SAMPLE).astype(np.int64))
        phrases = self._bank.phrases(rows.tolist())
        return Rarity(map(word_set, phrases)), Rarity(map(pair_set, phrases))


def word_set(text: str) -> set[Hashable]:
    """Words, case-folded."""
    return set(words(text))


def pair_set(text: str) -> set[Hashable]:
    """Pairs of neighbouring tokens as written, with the text's start and end."""
    return set(pairwise([START, *_TOKENS.findall(text), END]))


def opens_as_sentence(text: str) -> bool:
    """Whether the text begins with a capital."""
    return text[:1].isupper()


def ends_as_sentence(text: str) -> bool:
    """Whether the text ends in punctuation."""
    return text[-1:] in TERMINAL
