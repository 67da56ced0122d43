"""Validated arguments of the application: `serve run serve.app:build KEY=VALUE …` or args in config.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from cellular.client.results import DecoderName
from cellular.config import DecodingConfig, Settings, TeacherConfig


class Limits(Settings):
    """What one request may ask for. Beyond them: 413 for size, 504 for time."""

    max_batch: PositiveInt = Field(
        1024,
        description="texts or embeddings in one request; times the sequences that each of them is decoded to",
    )
    max_text_characters: PositiveInt = Field(8192, description="characters in one text")
    max_body_bytes: PositiveInt = Field(
        16 << 20, description="about 1,800 embeddings of 384 numbers written as JSON"
    )
    max_sequences: PositiveInt = Field(64, description="the largest n and beam of a request")
    max_length: PositiveInt = Field(512, description="the largest max_length of a request, in pieces")
    max_teacher_calls: int = Field(128, ge=0, description="texts that hybrid may embed for one answer")
    deadline_s: PositiveFloat = Field(30.0, description="seconds from the request to its answer")
    retry_after_s: PositiveInt = Field(1, description="seconds that a rejected client is told to wait")


class Interface(Settings):
    """Who may use the HTTP interface."""

    api_keys: Path | None = Field(
        None, description="file that `cellular api-key` writes, seen by every node; None: no key is asked for"
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="origins whose pages may call it from a browser, such as https://example.org"
    )


class Gathering(Settings):
    """How each Gateway joins requests that wait for the same stage."""

    calls: PositiveInt = Field(16, description="to one stage on their way at once; enough for its replicas")
    rows: PositiveInt = Field(32, description="texts or embeddings that make a call full")
    patience_s: PositiveFloat = Field(0.1, description="seconds after which a call leaves before it is full")
    queue: PositiveInt = Field(64, description="requests that wait for a stage; the next gets 503 at once")


class ServeConfig(Settings):
    """One application: a bank, a checkpoint or both, their teacher, and the limits of a request."""

    bank: Path | None = Field(
        None, description="folder of the bank, on a file system that every node sees; None: no bank"
    )
    version: str | None = Field(None, description="None: the bank's current version when the graph is built")
    checkpoint: str | None = Field(
        None, description="RET's folder or name; None: the packaged one, if it is of the bank's teacher"
    )
    engine: str = Field("auto", description="what computes RET: a name in ENGINES; auto: the fastest here")
    precision: Literal["fp32", "bf16", "int8", "int4"] = Field("fp32", description="of the engine")
    effort: str = Field("medium", description="of hybrid: none, low, medium or high")
    decoders: tuple[DecoderName, ...] | None = Field(
        None, min_length=1, description="which are served; None: all that the bank and the checkpoint allow"
    )
    teacher: TeacherConfig | None = Field(None, description="None: that of the bank and of the checkpoint")
    decoding: DecodingConfig = DecodingConfig(listed_candidates=10)
    limits: Limits = Limits()
    interface: Interface = Interface()
    gathering: Gathering = Gathering()

    @field_validator("teacher", mode="before")
    @classmethod
    def _teacher_by_name(cls, value: object) -> object:
        """`teacher=hash` on a command line is a name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("decoders", mode="before")
    @classmethod
    def _decoders_by_name(cls, value: object) -> object:
        """`decoders=ret,hybrid` on a command line is a list."""
        return value.split(",") if isinstance(value, str) else value

    @field_validator("decoding")
    @classmethod
    def _fallbacks(cls, value: DecodingConfig) -> DecodingConfig:
        """Requests share batches: one row without an answer must not fail the others."""
        if not value.enable_fallbacks:
            raise ValueError("enable_fallbacks cannot be false where requests are served")
        return value

    @model_validator(mode="after")
    def _decoders_have_what_they_need(self) -> "ServeConfig":
        for name in self.decoders or ():
            if name != "ret" and self.bank is None:
                raise ValueError(f"decoder {name} needs a bank: name its folder, or serve ret alone")
        return self
