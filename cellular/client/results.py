"""What the HTTP interface answers: the server declares these shapes, the client reads them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

DecoderName = Literal["phrase_bank", "ret", "hybrid"]


class Embedding(BaseModel):
    """One embedding; base64 holds little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """White-space separated words: a teacher's own tokens are not counted."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Embeddings in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Candidate(BaseModel):
    """A phrase of the bank and its cosine with the embedding."""

    phrase: str
    score: float


class PhraseBankResult(BaseModel):
    """The text that phrase_bank gives for one embedding, and where it came from."""

    text: str
    score: float = Field(description="cosine of the assembled text's embedding with the one asked for")
    source: Literal["bank", "cache", "fallback"]
    reason: str | None = Field(description="why this is a fallback")
    candidates: list[Candidate]


class Alternative(BaseModel):
    """A text that ret gives for an embedding."""

    text: str
    log_probability: float = Field(description="of the whole text, natural logarithm")


class RETResult(BaseModel):
    """The text that ret writes for one embedding."""

    text: str
    source: Literal["ret"]
    alternatives: list[Alternative] = Field(
        description="likeliest first; empty without beam, n and temperature"
    )


class HybridCandidate(BaseModel):
    """A text that hybrid considered."""

    text: str
    source: Literal["bank", "ret"]
    cosine: float = Field(description="of the text's embedding with the one asked for")
    judged: bool = Field(description="the cosine is the teacher's, and no estimate")
    log_probability: float = Field(description="RET's, of the whole text, natural logarithm")


class HybridResult(BaseModel):
    """The text that hybrid chose for one embedding."""

    text: str
    score: float = Field(description="cosine of the text's embedding with the one asked for")
    source: Literal["bank", "ret"]
    estimated: bool = Field(description="the score is an estimate: the teacher did not see this text")
    teacher_calls: int = Field(description="texts that the teacher embedded for this answer")
    candidates: list[HybridCandidate] = Field(
        description="with `explain`: the bank's nearest phrases, then texts in the order of their judgement"
    )


class TextToTextResult(BaseModel):
    """The text that text_to_text writes for one text."""

    text: str
    source: Literal["text_to_text"]


class BankInfo(BaseModel):
    """The bank that answers."""

    name: str
    version: str
    phrases: int
    dimension: int
    teacher: str


class Timings(BaseModel):
    """Milliseconds in each stage, queueing included; null where the stage was not needed."""

    embed_ms: float | None
    process_ms: float | None
    decode_ms: float | None


class DecodeResponse(BaseModel):
    """Results in the order of the request."""

    decoder: DecoderName
    results: list[PhraseBankResult] | list[RETResult] | list[HybridResult]
    lattice: str | None = Field(description="null where the embeddings went through none")
    bank: BankInfo | None = Field(description="null where the decoder uses none")
    timings: Timings


class GenerateResponse(BaseModel):
    """Results in the order of the request; what a mode does not use is null."""

    mode: Literal["direct", "text_to_text", "hybrid"]
    lattice: str | None
    decoder: DecoderName | None
    results: list[PhraseBankResult] | list[RETResult] | list[HybridResult] | list[TextToTextResult]
    bank: BankInfo | None
    timings: Timings


class ProcessResponse(BaseModel):
    """What a lattice makes of embeddings, in the order of the request."""

    object: Literal["list"] = "list"
    lattice: str
    data: list[Embedding]
    timings: Timings


class LatticeStates(BaseModel):
    """How far every cell is from rest: the Euclidean norms of their states."""

    lattice: str
    states: list[list[list[list[list[float]]]]] = Field(
        description="for each row: before the first step and after each, along x, y and z"
    )


class Model(BaseModel):
    """What is served: `fingerprint` tells whether two of a kind are the same."""

    id: str
    object: Literal["model"] = "model"
    kind: Literal["teacher", "decoder", "bank", "checkpoint", "lattice", "adapter"]
    fingerprint: str | None
    details: dict[str, Any]


class ModelList(BaseModel):
    """`GET /v1/models`, in OpenAI's shape."""

    object: Literal["list"] = "list"
    data: list[Model]


class StageStats(BaseModel):
    """What one replica has done since it started."""

    calls: int
    batches: int
    rows: int = Field(description="texts, embeddings or sessions")


class Stats(BaseModel):
    """`GET /v1/stats`: for each stage, each of its replicas."""

    stages: dict[str, list[StageStats]]


class Alive(BaseModel):
    """`GET /healthz`: whoever reads this was answered."""

    status: Literal["alive"] = "alive"
    version: str


class Readiness(BaseModel):
    """`ready`: every stage answers. `busy`: a queue is full. `unavailable`: a stage does not answer."""

    status: Literal["ready", "busy", "unavailable"]
    stages: dict[str, Literal["ready", "busy", "unavailable"]]
    teacher: str
    banks: list[BankInfo]


class FieldError(BaseModel):
    """One wrong field."""

    pointer: str = Field(description="JSON pointer into the request's body, as a fragment: #/texts/3")
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem document. `error` is added on OpenAI's route, in the shape its clients read."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="one sentence for a person")
    instance: str | None = Field(None, description="the request's id, as in X-Request-ID and in the logs")
    code: str = Field(description="the kind of problem, for programs")
    errors: list[FieldError] = []
    error: dict[str, Any] | None = None
