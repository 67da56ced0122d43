"""How each mode gets from a text to a text. Pieces are loaded when they are first used."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cellular.checks import check_embeddings
from cellular.errors import CellularError
from cellular.pipeline.config import (
    DirectPipelineConfig,
    HybridPipelineConfig,
    TextToTextPipelineConfig,
)
from cellular.types import FloatArray

if TYPE_CHECKING:
    from cellular.adapter import UniversalAdapter
    from cellular.cct import TextToText
    from cellular.decoders.opening import Answer, OpenDecoder
    from cellular.lattice import Lattice3D
    from cellular.teachers import Teacher


NO_HISTORY = (
    "this pipeline's lattice knows no earlier turns: give it one with a history, "
    "as in {'lattice': {'checkpoint': 'lattice-reply-all-MiniLM-L6-v2'}}"
)


class Flow(Protocol):
    """What every mode can do; see FlexibleCellularPipeline."""

    def answer(self, texts: Sequence[str]) -> "list[Answer]":
        """Texts to texts."""

    def decode(self, embeddings: ArrayLike) -> "list[Answer]":
        """Embeddings to texts."""

    def process(self, embeddings: ArrayLike) -> FloatArray:
        """Embeddings to embeddings."""

    def reply(self, turns: Sequence[str]) -> "Answer":
        """A dialogue's turns to the next."""

    def stream(self, text: str) -> Iterator[str]:
        """One text to one, as it is written."""

    def parameters(self) -> dict[str, int]:
        """Numbers by part, then of all."""


class EmbeddingFlow:
    """Teacher, lattice and decoder; in the hybrid mode an adapter between the first two."""

    def __init__(self, config: DirectPipelineConfig | HybridPipelineConfig) -> None:
        self.config = config

    @cached_property
    def teacher(self) -> "Teacher":
        """Embeds what texts are given."""
        from cellular.teachers import load_teacher

        return load_teacher(self.config.teacher)

    @cached_property
    def adapter(self) -> "UniversalAdapter | None":
        """Takes the teacher's embeddings to the lattice's space; None: they are there."""
        if isinstance(self.config, DirectPipelineConfig):
            return None
        from cellular.adapter import UniversalAdapter

        return UniversalAdapter.load(self.config.adapter.checkpoint)

    @cached_property
    def lattice(self) -> "Lattice3D | None":
        """The middle; None: the settings have none."""
        settings = self.config.lattice
        if settings is None:
            return None
        from cellular.lattice import load_lattice
        from cellular.lattice.inference import placed, with_steps

        lattice = placed(load_lattice(settings.checkpoint).lattice, settings.device, settings.precision)
        return lattice if settings.steps is None else with_steps(lattice, settings.steps)

    @cached_property
    def decoder(self) -> "OpenDecoder":
        """Writes the texts."""
        from cellular.decoders.opening import DecodeOptions, open_decoder

        settings = self.config.decoder
        judge = self.teacher if settings.chosen == "hybrid" and self.adapter is None else None
        options = DecodeOptions(
            bank=Path(settings.bank) if settings.bank else None,
            checkpoint=settings.checkpoint,
            method=settings.method,
            effort=settings.effort,
            seed=settings.seed,
            teacher=judge,
        )
        return open_decoder(settings.chosen, options)

    def answer(self, texts: Sequence[str]) -> "list[Answer]":
        """Texts to texts."""
        return self.decode(self.teacher.encode(texts)) if texts else []

    def decode(self, embeddings: ArrayLike) -> "list[Answer]":
        """Embeddings to texts."""
        return self.decoder.answer(self.process(embeddings))

    def process(self, embeddings: ArrayLike) -> FloatArray:
        """Embeddings to embeddings."""
        from cellular.lattice.inference import process

        rows = self._adapted(embeddings)
        if self.lattice is None:
            return check_embeddings(rows, self.decoder.dimension)
        return process(self.lattice, rows)

    def reply(self, turns: Sequence[str]) -> "Answer":
        """A dialogue's turns to the next."""
        from cellular.lattice.inference import process

        if self.lattice is None or self.lattice.history is None:
            raise CellularError(NO_HISTORY)
        rows = np.asarray(self._adapted(self.teacher.encode(turns)))
        return self.decoder.answer(process(self.lattice, rows[-1:], [rows[:-1]]))[0]

    def _adapted(self, embeddings: ArrayLike) -> ArrayLike:
        return embeddings if self.adapter is None else self.adapter(embeddings)

    def stream(self, text: str) -> Iterator[str]:
        """One text to one, as it is written."""
        row = self.process(self.teacher.encode([text]))
        if self.decoder.stream is None:
            return (one.text for one in self.decoder.answer(row))
        return self.decoder.stream(row[0])

    def parameters(self) -> dict[str, int]:
        """Numbers by part, then of all; those of teacher, bank and RET are not among them."""
        parts = {"adapter": self.adapter.parameters} if self.adapter else {}
        if self.lattice:
            from cellular.lattice import count_parameters

            counts = count_parameters(self.lattice)
            parts |= {f"lattice.{name}": count for name, count in counts.items() if name != "all"}
        return {**parts, "all": sum(parts.values())}


class TextToTextFlow:
    """An encoder and a decoder of text, with a lattice of their own between them."""

    def __init__(self, config: TextToTextPipelineConfig) -> None:
        self.settings = config.text_to_text

    @cached_property
    def model(self) -> "TextToText":
        """All of it."""
        from cellular.cct import TextToText

        return TextToText.load(self.settings.checkpoint)

    def answer(self, texts: Sequence[str]) -> "list[Answer]":
        """Texts to texts."""
        return self.decode(self.model.encode(texts))

    def decode(self, embeddings: ArrayLike) -> "list[Answer]":
        """Embeddings to texts."""
        from cellular.decoders.opening import Answer

        texts = self.model.decode(self.process(embeddings), self.settings.max_length)
        return [Answer(text, None, "text_to_text") for text in texts]

    def process(self, embeddings: ArrayLike) -> FloatArray:
        """Embeddings to embeddings."""
        return self.model.transform(embeddings, self.settings.task)

    def reply(self, turns: Sequence[str]) -> "Answer":
        """A dialogue's turns to the next."""
        raise CellularError(NO_HISTORY)

    def stream(self, text: str) -> Iterator[str]:
        """One text to one, as it is written."""
        return self.model.stream(text, self.settings.max_length, self.settings.task)

    def parameters(self) -> dict[str, int]:
        """Numbers by part, then of all."""
        return self.model.model.count_parameters()
