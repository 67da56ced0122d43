"""What served decoders are asked and answer: plain tuples, which a process reads without loading torch."""

from typing import Literal, NamedTuple


class RETOptions(NamedTuple):
    """How RET decodes.

    Attributes:
        temperature: 0: take the likeliest piece each time; above: draw pieces.
        top_p: draw among the likeliest pieces that together have this probability.
        seed: of the draws.
        beam: texts that a search for the likeliest text keeps; 0: 8, and only if several are asked for.
        n: texts for each embedding.
        max_length: pieces in a text; None: the decoder's own limit.
    """

    temperature: float = 0.0
    top_p: float = 0.9
    seed: int = 0
    beam: int = 0
    n: int = 1
    max_length: int | None = None


class Alternative(NamedTuple):
    """A text, and the natural logarithm of the probability that RET writes it."""

    text: str
    log_probability: float


class RETResult(NamedTuple):
    """A text, and the alternatives of which it is the likeliest; none where nothing was searched or drawn."""

    text: str
    alternatives: tuple[Alternative, ...] = ()


class HybridOptions(NamedTuple):
    """How the hybrid decodes.

    Attributes:
        max_teacher_calls: texts that the teacher may embed for each embedding; None: the effort's own number.
        seed: of RET's draws.
    """

    max_teacher_calls: int | None = None
    seed: int = 0


class HybridResult(NamedTuple):
    """The text that the hybrid chose; see `cellular.decoders.hybrid.HybridResult`."""

    text: str
    score: float
    source: Literal["bank", "ret"]
    estimated: bool
    teacher_calls: int
