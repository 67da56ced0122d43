"""RETDecoder: embeddings to text by the 722,944 parameters of a checkpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from cellular.checks import check_embeddings
from cellular.decoders.ret.beam import beam_search
from cellular.decoders.ret.checkpoint import DEFAULT_CHECKPOINT, TeacherInfo, load_checkpoint
from cellular.decoders.ret.engines import choose_engine
from cellular.decoders.ret.generation import (
    MAX_PIECES,
    Choice,
    Engine,
    Sampler,
    TorchEngine,
    Written,
    generate,
    likeliest,
    sample,
)
from cellular.decoders.ret.likelihood import log_probabilities
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.decoders.ret.weights import Precision
from cellular.errors import CellularError
from cellular.types import FloatArray

Method = Literal["greedy", "beam", "sample"]

_ROWS = 256  # texts written at a time: their keys and values take 2 MB each at the default length


class DecodeOptions(TypedDict, total=False):
    """Options of one text; `RETDecoder.decode_batch` explains them."""

    max_length: int
    method: Method
    beam_width: int
    length_penalty: float
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A text, and the natural logarithm of the probability that the decoder writes it."""

    text: str
    log_probability: float


class RETDecoder:
    """Turns teacher embeddings into texts, piece by piece, with no bank and no teacher.

    An answer depends on the embedding and the arguments, on nothing else: neither on the other embeddings of
    the call nor on earlier ones. Safe for several threads.

    Lengths are counted in pieces, of which English has about one for two characters. Embeddings are (N, E) of
    a floating dtype, and are scaled to unit length; methods raise ValueError for a wrong shape or dtype, NaN,
    infinity or a zero vector, naming the row, and for options out of range.

    Args:
        engine: runs the model.
        model: its weights also score texts.
        vocabulary: the pieces it was trained on.
        teacher: whose embeddings it reads; None: untrained.
    """

    def __init__(
        self, engine: Engine[Any], model: RET, vocabulary: Vocabulary, teacher: TeacherInfo | None = None
    ) -> None:
        self.engine, self.model, self.vocabulary, self.teacher = engine, model, vocabulary, teacher

    @staticmethod
    def load(
        name_or_folder: Path | str = DEFAULT_CHECKPOINT,
        *,
        engine: str = "auto",
        precision: Precision | None = None,
    ) -> "RETDecoder":
        """The decoder of a checkpoint.

        Args:
            name_or_folder: one that comes with the package, or a folder that `save_checkpoint` wrote.
            engine: a name in ENGINES; auto: the fastest that this machine has.
            precision: what the engine computes in; None: fp32.

        Raises:
            CellularError: no such checkpoint or engine, or a damaged file.
        """
        checkpoint = load_checkpoint(name_or_folder)
        chosen = choose_engine(engine, checkpoint.model, precision)
        return RETDecoder(chosen, checkpoint.model, checkpoint.vocabulary, checkpoint.teacher)

    def check_teacher(self, fingerprint: str) -> None:
        """Make sure that embeddings come from the space this decoder was trained on.

        Raises:
            CellularError: they do not; names both.
        """
        if self.teacher is not None and fingerprint != self.teacher.fingerprint:
            raise CellularError(
                f"these embeddings come from {fingerprint}, the decoder reads {self.teacher.fingerprint}: "
                f"embed with {self.teacher.name}, or load another checkpoint"
            )

    def decode(self, embedding: ArrayLike, **options: Unpack[DecodeOptions]) -> str:
        """The text of one embedding (E,); options as in `decode_batch`."""
        return self.decode_batch(_one_row(embedding), **options)[0]

    def decode_batch(
        self,
        embeddings: ArrayLike,
        *,
        max_length: int = MAX_PIECES,
        method: Method = "greedy",
        beam_width: int = 4,
        length_penalty: float = 1.0,
        temperature: float = 0.7,
        top_p: float = 0.9,
        seed: int = 0,
    ) -> list[str]:
        """The texts of embeddings (N, E).

        Args:
            embeddings: of the teacher.
            max_length: pieces after which a text is cut off.
            method: greedy: the likeliest piece each time; beam: the best text of a search; sample: a draw.
            beam_width: texts that are followed at once; beam only.
            length_penalty: see `beam_search`; beam only.
            temperature: below 1 for likelier texts, above for more varied ones; sample only.
            top_p: probability of the pieces that are drawn from; sample only.
            seed: of the draw.
        """
        if method == "beam":
            found = self.n_best(
                embeddings, 1, max_length=max_length, beam_width=beam_width, length_penalty=length_penalty
            )
        elif method == "sample":
            found = self.samples(
                embeddings, 1, max_length=max_length, temperature=temperature, top_p=top_p, seed=seed
            )
        elif method == "greedy":
            return self._greedy(embeddings, max_length)
        else:
            raise ValueError(f"method must be greedy, beam or sample, not {method!r}")
        return [hypotheses[0].text for hypotheses in found]

    def n_best(
        self,
        embeddings: ArrayLike,
        n: int,
        *,
        max_length: int = MAX_PIECES,
        beam_width: int | None = None,
        length_penalty: float = 1.0,
    ) -> list[list[Hypothesis]]:
        """The best texts that a beam search finds for each of the (N, E) embeddings, best first.

        Args:
            embeddings: of the teacher.
            n: texts of each, all different; fewer where pieces spelled a text in two ways.
            max_length: pieces after which a text is cut off.
            beam_width: texts that are followed at once, at least n; None: n.
            length_penalty: see `beam_search`.
        """
        width = n if beam_width is None else beam_width
        if width < _positive("n", n):
            raise ValueError(f"beam_width must be at least {n}, not {width}")
        rows, positions = self._rows(embeddings), _positive("max_length", max_length)
        return [
            self._distinct(texts)[:n]
            for chunk in _chunks(rows, width)
            for texts in beam_search(self.engine, chunk, positions, width, length_penalty)
        ]

    def samples(
        self,
        embeddings: ArrayLike,
        n: int,
        *,
        max_length: int = MAX_PIECES,
        temperature: float = 0.7,
        top_p: float = 0.9,
        seed: int = 0,
    ) -> list[list[Hypothesis]]:
        """`n` texts drawn for each embedding, in the order of drawing; the same seed draws the same.

        Their log-probabilities are the decoder's own: at temperature 1, with no piece cut off by `top_p`.
        """
        sampler = Sampler(_positive("n", n), _positive("max_length", max_length), temperature, top_p, seed)
        return [
            [self._hypothesis(written) for written in texts]
            for chunk in _chunks(self._rows(embeddings), n)
            for texts in sample(self.engine, chunk, max_length, n, sampler)
        ]

    def stream(
        self,
        embedding: ArrayLike,
        *,
        max_length: int = MAX_PIECES,
        method: Literal["greedy", "sample"] = "greedy",
        temperature: float = 0.7,
        top_p: float = 0.9,
        seed: int = 0,
    ) -> Iterator[str]:
        """The text that `decode` gives, as it is written: increments that never end inside a character."""
        rows = self._rows(_one_row(embedding))
        choose: Choice = likeliest
        if method == "sample":
            choose = Sampler(1, _positive("max_length", max_length), temperature, top_p, seed)
        elif method != "greedy":
            raise ValueError(f"method must be greedy or sample, not {method!r}")
        positions = generate(self.engine, rows, _positive("max_length", max_length), choose)
        return self.vocabulary.decode_stream(int(position.ids_R[0]) for position in positions)

    def log_probabilities(self, embeddings: ArrayLike, texts: Sequence[str]) -> FloatArray:
        """How likely each embedding's text is to be written as the vocabulary cuts it, END included.

        Args:
            embeddings: (N, E).
            texts: N of them.

        Returns:
            (N,) float32, natural logarithms.
        """
        rows = self._rows(embeddings)
        if len(rows) != len(texts):
            raise ValueError(f"{len(rows)} embeddings need as many texts, not {len(texts)}")
        return log_probabilities(self.model, rows, self.vocabulary.encode_batch(texts))

    def _count_parameters(self) -> int:
        return self.model._count_parameters()

    def _rows(self, embeddings: ArrayLike) -> FloatArray:
        rows = check_embeddings(embeddings, self.model.config.embedding_dimension)
        return rows if rows.flags.writeable else rows.copy()  # torch warns of views that are not

    def _greedy(self, embeddings: ArrayLike, max_length: int) -> list[str]:
        positions = _positive("max_length", max_length)
        return [
            self.vocabulary.decode(ids)
            for chunk in _chunks(self._rows(embeddings))
            for ids in self.engine.greedy(chunk, positions)
        ]

    def _hypothesis(self, written: Written) -> Hypothesis:
        return Hypothesis(self.vocabulary.decode(written.pieces), written.log_probability)

    def _distinct(self, texts: Sequence[Written]) -> list[Hypothesis]:
        """Each text once, as its best."""
        found: dict[str, Hypothesis] = {}
        for hypothesis in map(self._hypothesis, texts):
            found.setdefault(hypothesis.text, hypothesis)
        return list(found.values())


def create_ultra_compact_decoder(
    embedding_dimension: Literal[384, 768] = 384, applications: int = 8
) -> RETDecoder:
    """A decoder of exactly 722,944 parameters, with random weights: what training starts from.

    Args:
        embedding_dimension: of the teacher.
        applications: times that the layer is applied; costs no parameters.
    """
    model = RET(RETConfig(embedding_dimension=embedding_dimension, applications=applications))
    return RETDecoder(TorchEngine(model), model, Vocabulary.load())


def _one_row(embedding: ArrayLike) -> ArrayLike:
    if np.ndim(embedding) != 1:
        raise ValueError(f"embedding must have shape (E,), not {np.shape(embedding)}")
    return embedding


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value


def _chunks(rows: FloatArray, copies: int = 1) -> Iterator[FloatArray]:
    size = max(1, _ROWS // copies)
    return (rows[start : start + size] for start in range(0, len(rows), size))
