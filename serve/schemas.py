"""Bodies of requests and responses: what /openapi.json shows, validated before any stage is called."""

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from cellular.types import FloatArray
from serve.settings import DecoderName

# Strict: "1" and true are no numbers. JSON has no NaN, but Python's parser accepts it, so it is refused here.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]
Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
ONE_OR_MORE_TEXTS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ]
}
Method = Literal["greedy", "weighted", "beam_search", "context_aware"]


class Body(BaseModel):
    """A request: an unknown key is an error, so that a misspelt option is not ignored."""

    model_config = ConfigDict(extra="forbid")


class EmbeddingsRequest(Body):
    """`POST /v1/embeddings`, the shape of OpenAI's API."""

    input: Annotated[list[Text], WithJsonSchema(ONE_OR_MORE_TEXTS)] = Field(
        min_length=1, description="one text or a list of texts; token arrays are not accepted"
    )
    model: str = Field(description="name of the teacher, as /healthz gives it")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: PositiveInt | None = Field(None, description="accepted only if it is the teacher's own")
    user: str | None = Field(None, description="accepted and not used")

    @field_validator("input", mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: object) -> object:
        if isinstance(value, list) and value and all(isinstance(item, int | list) for item in value):
            raise ValueError("token arrays are not accepted: send the texts themselves")
        return [value] if isinstance(value, str) else value


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


class DecodeRequest(Body):
    """`POST /v1/decode`: embeddings, or texts to be embedded first, and the options of one decoder."""

    embeddings: list[list[Number]] | None = Field(
        None, min_length=1, description="rows of the teacher's dimension"
    )
    texts: list[Text] | None = Field(None, min_length=1)
    decoder: DecoderName | None = Field(
        None, description="null: phrase_bank where a bank is served, else ret"
    )
    stream: bool = Field(
        False, strict=True, description="ret: server-sent events `text`, then `result` or `error`"
    )
    top_k: Count | None = Field(
        None, description="phrase_bank: candidates in each result; null: all that are listed"
    )
    method: Method | None = Field(None, description="phrase_bank: assembly method; null: the application's")
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="ret: draw pieces; null and 0: take the likeliest each time"
    )
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="ret: draw among the likeliest pieces that together are this probable; null: 0.9"
    )
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = Field(
        None, description="ret, hybrid: of the draws; null: 0"
    )
    beam: Count | None = Field(None, description="ret: texts that a search for the likeliest keeps")
    n: Count | None = Field(None, description="ret: texts for each embedding")
    max_length: Count | None = Field(None, description="ret: pieces, of about two characters; null: 128")
    max_teacher_calls: Annotated[int, Field(strict=True, ge=0)] | None = Field(
        None,
        description="hybrid: texts that the teacher embeds for each answer; null: the application's",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "DecodeRequest":
        if (self.embeddings is None) == (self.texts is None):
            raise ValueError("send exactly one of embeddings and texts")
        return self


# The options of each decoder; those of the others are refused.
OPTIONS: dict[DecoderName, tuple[str, ...]] = {
    "phrase_bank": ("top_k", "method"),
    "ret": ("stream", "temperature", "top_p", "seed", "beam", "n", "max_length"),
    "hybrid": ("seed", "max_teacher_calls"),
}


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


class HybridResult(BaseModel):
    """The text that hybrid chose for one embedding."""

    text: str
    score: float = Field(description="cosine of the text's embedding with the one asked for")
    source: Literal["bank", "ret"]
    estimated: bool = Field(description="the score is an estimate: the teacher did not see this text")
    teacher_calls: int = Field(description="texts that the teacher embedded for this answer")


class BankInfo(BaseModel):
    """The bank that answers."""

    version: str
    phrases: int
    dimension: int
    teacher: str


class Timings(BaseModel):
    """Milliseconds in each stage, queueing included; null where the stage was not needed."""

    embed_ms: float | None
    decode_ms: float


class DecodeResponse(BaseModel):
    """Results in the order of the request."""

    decoder: DecoderName
    results: list[PhraseBankResult] | list[RETResult] | list[HybridResult]
    bank: BankInfo | None = Field(description="null where the decoder uses none")
    timings: Timings


class Model(BaseModel):
    """What is served: `fingerprint` tells whether two of a kind are the same."""

    id: str
    object: Literal["model"] = "model"
    kind: Literal["teacher", "decoder", "bank", "checkpoint"]
    fingerprint: str | None
    details: dict[str, Any]


class ModelList(BaseModel):
    """`GET /v1/models`, in OpenAI's shape."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """`ready`: every stage answers. `busy`: a queue is full. `unavailable`: a stage does not answer."""

    status: Literal["ready", "busy", "unavailable"]
    stages: dict[str, Literal["ready", "busy", "unavailable"]]
    teacher: str
    bank: BankInfo | None


class FieldError(BaseModel):
    """One wrong field."""

    pointer: str = Field(description="JSON pointer into the request's body")
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem document. `error` is added on OpenAI's route, in the shape its clients read."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] = []
    error: dict[str, Any] | None = None


def embedding_fields(vectors: FloatArray, encoding: Literal["float", "base64"]) -> list[dict[str, object]]:
    """`data` of an embeddings response; (N, D) float32 rows stay arrays for the JSON encoder."""
    rows: Sequence[object] = list(vectors)
    if encoding == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    return [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]


def model_fields(kind: str, described: Mapping[str, Any]) -> dict[str, object]:
    """One Model, from what a stage says: `name`, `fingerprint` if it has one, and the rest."""
    details = {key: value for key, value in described.items() if key not in ("name", "fingerprint")}
    fingerprint = described.get("fingerprint")
    return {
        "id": described["name"],
        "object": "model",
        "kind": kind,
        "fingerprint": fingerprint,
        "details": details,
    }
