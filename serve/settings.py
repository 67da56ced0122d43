"""Validated arguments of the application: `serve run serve.app:build KEY=VALUE …` or args in config.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from cellular.config import DecodingConfig, Settings, TeacherConfig

StageName = Literal[
    "Lattice", "PhraseBankDecoder", "RETDecoder", "HybridDecoder", "TextToText", "SessionStore"
]


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
    max_requests: PositiveInt = Field(
        48,
        description="that one Gateway answers at once; the next gets 503 while the others go on",
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

    calls: PositiveInt = Field(
        16, description="to one stage on their way at once; one for each replica, and what cannot wait"
    )
    rows: PositiveInt = Field(32, description="texts or embeddings that make a call full")
    patience_s: PositiveFloat = Field(0.1, description="seconds after which a call leaves before it is full")
    queue: PositiveInt = Field(64, description="requests that wait for a stage; the next gets 503 at once")


class BankSettings(Settings):
    """Where a bank is."""

    folder: Path = Field(description="on a file system that every node sees")
    version: str | None = Field(
        None, description="None: the one that is published, now and whenever another is"
    )


class Sessions(Settings):
    """How much of dialogues is remembered."""

    number: PositiveInt = Field(10_000, description="sessions; the one used longest ago makes room")
    age_s: PositiveFloat = Field(3600.0, description="seconds without use after which one is forgotten")
    turns: PositiveInt = Field(8, description="latest turns of a session that are kept")
    file: Path | None = Field(
        None, description="outlives the SessionStore, where its node sees it again; None: in its memory"
    )


class ServeConfig(Settings):
    """One application: banks, checkpoints or both, their teacher, and the limits of a request."""

    banks: dict[str, BankSettings] = Field(
        {}, description="by name; the first answers where a request names none"
    )
    refresh_s: PositiveFloat = Field(
        5.0, description="seconds between looks at what version of a bank is published"
    )
    checkpoint: str | None = Field(
        None, description="RET's folder or name; None: the packaged one, if it is of the banks' teacher"
    )
    engine: str = Field("auto", description="what computes RET: a name in ENGINES; auto: the fastest here")
    precision: Literal["fp32", "bf16", "int8", "int4"] = Field("fp32", description="of the engine")
    effort: str = Field("medium", description="of hybrid: none, low, medium or high")
    lattices: tuple[str, ...] | None = Field(
        None,
        description="names or folders; the first is the default. None: the packaged that fit the teacher",
    )
    text_to_text: str | None = Field(None, description="name or folder; None: the packaged one")
    adapter: str | None = Field(
        None, description="of mode hybrid: name or folder; None: the packaged one, if it leads to the teacher"
    )
    stages: tuple[StageName, ...] | None = Field(
        None, min_length=1, description="beside Gateway and Embedder; None: all that there is something for"
    )
    fused: bool = Field(False, description="every stage in one process: for one small machine")
    teacher: TeacherConfig | None = Field(None, description="None: that of the banks and of the checkpoint")
    decoding: DecodingConfig = DecodingConfig(listed_candidates=10)
    sessions: Sessions = Sessions()
    limits: Limits = Limits()
    interface: Interface = Interface()
    gathering: Gathering = Gathering()

    @field_validator("teacher", mode="before")
    @classmethod
    def _teacher_by_name(cls, value: object) -> object:
        """`teacher=hash` on a command line is a name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("banks", mode="before")
    @classmethod
    def _banks_by_folder(cls, value: object) -> object:
        """`banks=news=/srv/news,/srv/mails` on a command line; a folder's own name is a name too."""
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, list | tuple):
            value = dict(_named(str(one)) for one in value)
        if isinstance(value, dict):
            value = {
                name: {"folder": one} if isinstance(one, str | Path) else one for name, one in value.items()
            }
        return value

    @field_validator("stages", "lattices", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        """`stages=Lattice,RETDecoder` on a command line is a list."""
        return value.split(",") if isinstance(value, str) else value

    @field_validator("decoding")
    @classmethod
    def _fallbacks(cls, value: DecodingConfig) -> DecodingConfig:
        """Requests share batches: one row without an answer must not fail the others."""
        if not value.enable_fallbacks:
            raise ValueError("enable_fallbacks cannot be false where requests are served")
        return value


def _named(bank: str) -> tuple[str, str]:
    """Name and folder of `name=folder`, or of a folder."""
    name, _, folder = bank.rpartition("=")
    return name or Path(folder).resolve().name, folder
