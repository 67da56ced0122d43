"""Decoders by name, each answering in one form: what `cellular decode` needs of them.

To add one: a function and a line in OPENERS.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from cellular.bank import PhraseBank
from cellular.config import DecodeCorpusConfig, DecodingConfig
from cellular.decoders.phrase_bank import PhraseBankDecoder, open_default_bank
from cellular.errors import CellularError
from cellular.queries import bank_teacher, checked_teacher
from cellular.teachers import Teacher
from cellular.types import FloatArray

if TYPE_CHECKING:
    from cellular.decoders.ret import RETDecoder
    from cellular.decoders.ret.decoder import Method
    from cellular.decoders.ret.weights import Precision

RET_METHODS: tuple["Method", ...] = ("greedy", "beam", "sample")


class DecodeOptions(NamedTuple):
    """What decoders are made of.

    Attributes:
        bank: folder; None: the demo's.
        checkpoint: RET's weights, by name or folder; None: those of the package.
        precision: what RET computes in; None: fp32.
        method: of a decoder that has several; None: its default.
        effort: of `hybrid`, a name in its EFFORTS; None: its default.
        seed: of what draws.
        teacher: judges for `hybrid`; None: the bank's, which is loaded.
    """

    bank: Path | None = None
    checkpoint: str | None = None
    precision: "Precision | None" = None
    method: str | None = None
    effort: str | None = None
    seed: int = 0
    teacher: Teacher | None = None

    @classmethod
    def of(cls, config: DecodeCorpusConfig) -> "DecodeOptions":
        """Those of a job."""
        return cls(
            config.bank, config.checkpoint, config.precision, config.method, config.effort, config.seed
        )


class Answer(NamedTuple):
    """A text, its cosine where the decoder knows one, what it came from, and why if that is a fallback."""

    text: str
    score: float | None
    source: str
    reason: str | None = None


class OpenDecoder(NamedTuple):
    """A decoder.

    Attributes:
        dimension: D of the embeddings that it reads.
        fingerprint: of their space.
        teacher: makes them.
        answer: to (N, D).
        stream: the text of (D,) as it is written; None: it comes as a whole.
    """

    dimension: int
    fingerprint: str
    teacher: Callable[[], Teacher]
    answer: Callable[[FloatArray], list[Answer]]
    stream: Callable[[FloatArray], Iterator[str]] | None = None


def open_decoder(name: str, options: DecodeOptions) -> OpenDecoder:
    """The decoder of a name in OPENERS.

    Raises:
        CellularError: no such decoder, an option that it has not, or a part that cannot be opened.
    """
    if name not in OPENERS:
        raise CellularError(f"no decoder {name}: choose {', '.join(OPENERS)}")
    return OPENERS[name](options)


def open_phrase_bank(options: DecodeOptions) -> OpenDecoder:
    """PhraseBankDecoder."""
    settings = {"assembly_method": options.method} if options.method else {}
    decoder = PhraseBankDecoder(DecodingConfig.model_validate(settings))
    bank = open_bank(options.bank)
    decoder.load_phrase_bank(bank)

    def answer(rows: FloatArray) -> list[Answer]:
        return [Answer(one.text, one.score, one.source, one.reason) for one in decoder.decode_batch(rows)]

    return OpenDecoder(bank.dimension, bank.fingerprint, partial(bank_teacher, bank), answer)


def open_ret(options: DecodeOptions) -> OpenDecoder:
    """RETDecoder, which asks no teacher and so knows no cosine."""
    methods = [method for method in RET_METHODS if method == (options.method or RET_METHODS[0])]
    if not methods:
        raise CellularError(f"ret has no method {options.method}: choose {', '.join(RET_METHODS)}")
    decoder = _ret(options)
    trained = decoder.teacher
    assert trained is not None  # a checkpoint names its teacher

    def answer(rows: FloatArray) -> list[Answer]:
        texts = decoder.decode_batch(rows, method=methods[0], seed=options.seed)
        return [Answer(text, None, "ret") for text in texts]

    def stream(row: FloatArray) -> Iterator[str]:
        method: Literal["greedy", "sample"] = "sample" if methods[0] == "sample" else "greedy"
        return decoder.stream(row, method=method, seed=options.seed)

    streams = methods[0] != "beam"  # which knows its text at the end
    teacher = partial(checked_teacher, trained.name, decoder.check_teacher)
    return OpenDecoder(trained.dimension, trained.fingerprint, teacher, answer, stream if streams else None)


def open_hybrid(options: DecodeOptions) -> OpenDecoder:
    """HybridDecoder."""
    from cellular.decoders.hybrid import HybridDecoder

    if options.method:
        raise CellularError("hybrid has no methods: choose its effort instead")
    bank = open_bank(options.bank)
    teacher = options.teacher or bank_teacher(bank)
    decoder = HybridDecoder(bank, _ret(options), teacher, options.effort or "medium")

    def answer(rows: FloatArray) -> list[Answer]:
        found = decoder.decode_batch(rows, seed=options.seed)
        return [Answer(one.text, one.score, one.source) for one in found]

    return OpenDecoder(bank.dimension, bank.fingerprint, lambda: teacher, answer)


def gains_by_gpu(config: DecodeCorpusConfig) -> bool:
    """Whether a job is done sooner with one: RET's bf16 runs there, a lattice, the teacher of `hybrid`."""
    return config.decoder == "hybrid" or config.precision == "bf16" or config.lattice is not None


OPENERS: dict[str, Callable[[DecodeOptions], OpenDecoder]] = {
    "phrase_bank": open_phrase_bank,
    "ret": open_ret,
    "hybrid": open_hybrid,
}


def open_bank(folder: Path | str | None) -> PhraseBank:
    """The bank in a folder; None: the one that `cellular demo` made.

    Raises:
        CellularError: there is none, or it is damaged.
    """
    return open_default_bank() if folder is None else PhraseBank.open(folder)


def _ret(options: DecodeOptions) -> "RETDecoder":
    from cellular.decoders.ret import DEFAULT_CHECKPOINT, RETDecoder

    return RETDecoder.load(options.checkpoint or DEFAULT_CHECKPOINT, precision=options.precision)
