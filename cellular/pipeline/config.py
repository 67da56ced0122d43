"""Settings of the pipelines. `loading` reads them; the named ones are in cellular/configs."""

import os
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, field_validator

from cellular.config import Device, LatticePrecision, Settings, TeacherConfig

DecoderName = Literal["phrase_bank", "ret", "hybrid"]
Location = Annotated[
    str, BeforeValidator(lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value)
]


class LatticeSettings(Settings):
    """Which lattice, and how it runs."""

    checkpoint: Location = Field(description="a packaged one's name, or a folder")
    steps: PositiveInt | None = Field(None, description="updates of every cell; None: as it was trained")
    device: Device = Field("auto", description="auto: a GPU where there is one")
    precision: LatticePrecision = Field(
        "auto", description="auto: bf16 where the device multiplies it faster than float32"
    )


class AdapterSettings(Settings):
    """What takes another teacher's embeddings into the lattice's space."""

    checkpoint: Location = Field(description="a packaged one's name, or a folder")


class DecoderSettings(Settings):
    """What writes the text of an embedding."""

    name: Literal["auto", "phrase_bank", "ret", "hybrid"] = Field(
        "auto", description="auto: phrase_bank where a bank is given, else ret, which needs none"
    )
    bank: Location | None = Field(None, description="folder of the bank; None: the demo's, where one is used")
    checkpoint: Location | None = Field(None, description="RET's weights; None: those of the package")
    method: str | None = Field(None, description="of phrase_bank or ret; None: its default")
    effort: str | None = Field(None, description="of hybrid; None: its default")
    seed: int = Field(0, description="of what ret and hybrid draw")

    @field_validator("method", "effort")
    @classmethod
    def _known(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or not {"name", "bank"} <= info.data.keys():  # those are wrong themselves
            return value
        decoder = _choose(info.data["name"], info.data["bank"])
        allowed = _methods(decoder) if info.field_name == "method" else _efforts(decoder)
        if value not in allowed:
            raise ValueError(f"choose {', '.join(allowed)}" if allowed else f"{decoder} has none")
        return value

    @property
    def chosen(self) -> DecoderName:
        """The name, auto resolved."""
        return _choose(self.name, self.bank)

    @property
    def uses_bank(self) -> bool:
        """Whether phrases are searched."""
        return self.chosen != "ret"

    @property
    def uses_ret(self) -> bool:
        """Whether RET writes."""
        return self.chosen != "phrase_bank"


def _choose(name: Literal["auto", "phrase_bank", "ret", "hybrid"], bank: str | None) -> DecoderName:
    if name != "auto":
        return name
    return "ret" if bank is None else "phrase_bank"


def _methods(decoder: DecoderName) -> tuple[str, ...]:
    from cellular.decoders import ASSEMBLERS  # FAISS and torch: not every pipeline needs them
    from cellular.decoders.opening import RET_METHODS

    return {"phrase_bank": tuple(ASSEMBLERS), "ret": RET_METHODS, "hybrid": ()}[decoder]


def _efforts(decoder: DecoderName) -> tuple[str, ...]:
    from cellular.decoders.hybrid import EFFORTS

    return tuple(EFFORTS) if decoder == "hybrid" else ()


class TextToTextSettings(Settings):
    """Which encoder and decoder of text, and what they are asked to do."""

    checkpoint: Location = Field(description="a packaged one's name, or a folder")
    task: str | None = Field(None, description="what it was trained for; None: the first of its tasks")
    max_length: PositiveInt = Field(128, description="pieces in a text")


class EmbeddingPipelineConfig(Settings):
    """What two modes share: embeddings, through the lattice, to text."""

    teacher: TeacherConfig = Field(description="what makes embeddings of texts")
    lattice: LatticeSettings | None = Field(description="None: embeddings are decoded as they are")
    decoder: DecoderSettings


class DirectPipelineConfig(EmbeddingPipelineConfig):
    """Text, its teacher's embedding, the lattice, a decoder, text."""

    mode: Literal["direct"]


class HybridPipelineConfig(EmbeddingPipelineConfig):
    """Text or its embedding, an adapter, the lattice, a decoder, text."""

    mode: Literal["hybrid"]
    adapter: AdapterSettings


class TextToTextPipelineConfig(Settings):
    """Text, pieces, an encoder, the lattice, a decoder, text."""

    mode: Literal["text_to_text"]
    text_to_text: TextToTextSettings


PipelineConfig = DirectPipelineConfig | TextToTextPipelineConfig | HybridPipelineConfig
