"""Bodies of requests and responses: what /openapi.json shows, validated before any stage is called."""

import base64
from collections.abc import Sequence
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

# Strict: "1" and true are no numbers. JSON has no NaN, but Python's parser accepts it, so it is refused here.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
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
    """`POST /v1/decode`: embeddings, or texts to be embedded first."""

    embeddings: list[list[Number]] | None = Field(
        None, min_length=1, description="rows of the bank's dimension"
    )
    texts: list[Text] | None = Field(None, min_length=1)
    top_k: PositiveInt | None = Field(
        None, description="candidates in each result; null: all that are listed"
    )
    method: Method | None = Field(None, description="assembly method; null: the application's")

    @model_validator(mode="after")
    def _exactly_one(self) -> "DecodeRequest":
        if (self.embeddings is None) == (self.texts is None):
            raise ValueError("send exactly one of embeddings and texts")
        return self


class Candidate(BaseModel):
    """A phrase of the bank and its cosine with the embedding."""

    phrase: str
    score: float


class DecodeResult(BaseModel):
    """The text for one embedding, and where it came from."""

    text: str
    score: float = Field(description="cosine of the assembled text's embedding with the one asked for")
    source: Literal["bank", "cache", "fallback"]
    reason: str | None = Field(description="why this is a fallback")
    candidates: list[Candidate]


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

    results: list[DecodeResult]
    bank: BankInfo
    timings: Timings


class Health(BaseModel):
    """`ready`: every stage answers. `busy`: a queue is full. `unavailable`: a stage does not answer."""

    status: Literal["ready", "busy", "unavailable"]
    stages: dict[str, Literal["ready", "busy", "unavailable"]]
    teacher: str
    bank: BankInfo


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
