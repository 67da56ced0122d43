"""What a decoder answers."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Source = Literal["bank", "cache", "fallback"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A phrase that the search found: its row in the bank and its cosine with the target."""

    id: int
    phrase: str
    score: float


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """The text for one embedding.

    Attributes:
        text: the answer; the configured fallback text where `source` is "fallback".
        score: cosine between the target and what the bank's vectors predict for the text; 0 for a fallback.
        source: where the answer came from.
        reason: why it is a fallback, else None.
        phrases: rows of the bank, in reading order.
        candidates: the nearest phrases, best first.
    """

    text: str
    score: float
    source: Source
    reason: str | None = None
    phrases: tuple[int, ...] = ()
    candidates: tuple[Candidate, ...] = ()


class Answer(NamedTuple):
    """What a DecodeResult is made of, cheap to make and to keep: candidates by id, without their texts."""

    text: str
    score: float
    source: Source
    reason: str | None
    phrases: tuple[int, ...]
    ids: list[int]
    scores: list[float]
