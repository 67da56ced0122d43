"""FlexibleCellularPipeline: any of the three modes in one process."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from numpy.typing import ArrayLike

from cellular.pipeline.config import PipelineConfig, TextToTextPipelineConfig
from cellular.pipeline.flows import EmbeddingFlow, Flow, TextToTextFlow
from cellular.pipeline.loading import Source, check_pieces, load_config
from cellular.types import FloatArray

if TYPE_CHECKING:
    from cellular.decoders.opening import Answer


class FlexibleCellularPipeline:
    """Text to text, by way of embeddings and a lattice of cells.

    A piece is loaded when it is first used, and one that the mode does not need never. An answer depends on
    the text and the settings, and not on the other texts of a call, as far as the teacher rounds alike.

    Args:
        config: what `load_config` gives, or what it takes. By default the direct mode.

    Raises:
        CellularError: settings that cannot be used; lists every problem with its path.
    """

    def __init__(self, config: PipelineConfig | Source = "direct_embedding_pipeline") -> None:
        if isinstance(config, PipelineConfig):
            check_pieces(config)
        self.config = config if isinstance(config, PipelineConfig) else load_config(config)
        self._flow = _flow(self.config)

    @overload
    def generate(self, texts: str) -> str: ...
    @overload
    def generate(self, texts: list[str]) -> list[str]: ...
    def generate(self, texts: str | list[str]) -> str | list[str]:
        """What the pipeline makes of a text, or of each of several.

        Raises:
            ValueError: something is not a string, or no Unicode text.
        """
        if isinstance(texts, str):
            return self.answer([texts])[0].text
        return [answer.text for answer in self.answer(texts)]

    def answer(self, texts: Sequence[str]) -> "list[Answer]":
        """As `generate`, with the cosine to the embedding that was decoded, where the decoder knows it."""
        return self._flow.answer(texts)

    def reply(self, turns: Sequence[str]) -> str:
        """What follows a dialogue, by a lattice that reads its history.

        Args:
            turns: of both speakers, oldest first; at least one.

        Raises:
            CellularError: the lattice has no history.
            ValueError: no turn, or something is not a string.
        """
        if not turns:
            raise ValueError("a dialogue has at least one turn")
        return self._flow.reply(turns).text

    def decode(self, embeddings: ArrayLike) -> list[str]:
        """Texts of embeddings (N, D): the pipeline from there on, as `process` takes them."""
        return [answer.text for answer in self._flow.decode(embeddings)]

    def process(self, embeddings: ArrayLike) -> FloatArray:
        """The middle alone: what is decoded, of what the texts became.

        Args:
            embeddings: (N, D) or (D,) floating, of the mode's teacher; in mode text_to_text of its encoder.

        Returns:
            (N, E) float32 of unit length, of the space that the decoder reads.

        Raises:
            ValueError: wrong shape or dtype, NaN, infinity or a zero vector; names the row.
        """
        return self._flow.process(embeddings)

    def stream(self, text: str) -> Iterator[str]:
        """The text that `generate` gives, in increments where the decoder writes piece by piece."""
        return self._flow.stream(text)

    def parameters(self) -> dict[str, int]:
        """Numbers of trained parameters by part, then of all.

        Those of the teacher, the bank and RET, which other pipelines use as they are, are not counted.
        """
        return self._flow.parameters()


def _flow(config: PipelineConfig) -> Flow:
    if isinstance(config, TextToTextPipelineConfig):
        return TextToTextFlow(config)
    return EmbeddingFlow(config)
