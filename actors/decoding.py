"""What served decoders are asked and answer: plain tuples, which a process reads without loading torch."""

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from cellular.decoders.context import Session


class PhraseBankOptions(NamedTuple):
    """How a phrase bank decodes.

    Attributes:
        method: one of DecodingConfig.assembly_method; None: the decoder's own.
        session: what was said before.
    """

    method: str | None = None
    session: "Session | None" = None


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
        explain: also return the candidates.
    """

    max_teacher_calls: int | None = None
    seed: int = 0
    explain: bool = False


class HybridCandidate(NamedTuple):
    """A text that was considered; see `cellular.decoders.hybrid.Candidate`."""

    text: str
    source: Literal["bank", "ret"]
    cosine: float
    judged: bool
    log_probability: float


class HybridResult(NamedTuple):
    """The text that the hybrid chose; see `cellular.decoders.hybrid.HybridResult`."""

    text: str
    score: float
    source: Literal["bank", "ret"]
    estimated: bool
    teacher_calls: int
    candidates: tuple[HybridCandidate, ...] = ()


class TextOptions(NamedTuple):
    """How text to text writes.

    Attributes:
        task: what it was trained for; None: the first of its tasks.
        max_length: pieces in a text; None: its own limit.
    """

    task: str | None = None
    max_length: int | None = None
