"""Validated arguments of the application: `serve run serve.app:build KEY=VALUE …` or args in config.yaml."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from cellular.config import DecodingConfig, Settings, TeacherConfig


class Limits(Settings):
    """What one request may ask for. Beyond them: 413 for size, 504 for time."""

    max_batch: PositiveInt = Field(1024, description="texts or embeddings in one request")
    max_text_characters: PositiveInt = Field(8192, description="characters in one text")
    max_body_bytes: PositiveInt = Field(
        16 << 20, description="about 1,800 embeddings of 384 numbers written as JSON"
    )
    deadline_s: PositiveFloat = Field(30.0, description="seconds from the request to its answer")
    retry_after_s: PositiveInt = Field(1, description="seconds that a rejected client is told to wait")


class ServeConfig(Settings):
    """One application: a bank, the teacher that made it, and the limits of a request."""

    bank: Path = Field(description="folder of the bank, on a file system that every node sees")
    version: str | None = Field(None, description="None: the bank's current version when the graph is built")
    teacher: TeacherConfig | None = Field(None, description="None: the teacher that made the bank")
    decoding: DecodingConfig = DecodingConfig(listed_candidates=10)
    limits: Limits = Limits()

    @field_validator("teacher", mode="before")
    @classmethod
    def _teacher_by_name(cls, value: object) -> object:
        """`teacher=hash` on a command line is a name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("decoding")
    @classmethod
    def _fallbacks(cls, value: DecodingConfig) -> DecodingConfig:
        """Requests share batches: one row without an answer must not fail the others."""
        if not value.enable_fallbacks:
            raise ValueError("enable_fallbacks cannot be false where requests are served")
        return value
