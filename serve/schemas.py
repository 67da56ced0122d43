"""Bodies of requests, validated before any stage is called; responses are in `cellular.client.results`."""

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

from cellular.client.results import DecoderName
from cellular.types import FloatArray

# Strict: "1" and true are no numbers. JSON has no NaN, but Python's parser accepts it, so it is refused here.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1)]
Text = Annotated[str, StringConstraints(strict=True, min_length=1)]
Name = Annotated[str, StringConstraints(strict=True, max_length=256)]
ONE_OR_MORE_TEXTS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ]
}
SessionId = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Writer = DecoderName | Literal["text_to_text"]
Method = Literal["greedy", "weighted", "beam_search", "context_aware"]


class Body(BaseModel):
    """A request: an unknown key is an error, so that a misspelt option is not ignored."""

    model_config = ConfigDict(extra="forbid")


class EmbeddingsRequest(Body):
    """`POST /v1/embeddings`, the shape of OpenAI's API."""

    input: Annotated[list[Text], WithJsonSchema(ONE_OR_MORE_TEXTS)] = Field(
        min_length=1, description="one text or a list of texts; token arrays are not accepted"
    )
    model: Name | None = Field(
        None, description="name of the teacher, its id in /v1/models; null: the teacher"
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: PositiveInt | None = Field(None, description="accepted only if it is the teacher's own")
    user: Name | None = Field(None, description="accepted and not used")

    @field_validator("input", mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: object) -> object:
        if isinstance(value, list) and value and all(isinstance(item, int | list) for item in value):
            raise ValueError("token arrays are not accepted: send the texts themselves")
        return [value] if isinstance(value, str) else value


class RowsRequest(Body):
    """Embeddings, or texts to be embedded first."""

    embeddings: list[list[Number]] | None = Field(
        None, min_length=1, description="rows of the teacher's dimension"
    )
    texts: list[Text] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _exactly_one(self) -> "RowsRequest":
        if (self.embeddings is None) == (self.texts is None):
            raise ValueError("send exactly one of embeddings and texts")
        return self


class ProcessRequest(RowsRequest):
    """`POST /v1/process`: embeddings through a lattice."""

    lattice: Name | None = Field(None, description="its id in /v1/models; null: the first that is served")
    earlier: list[list[list[Number]]] | None = Field(
        None,
        description="for each row the embeddings of the turns before it, oldest first; a lattice of "
        "dialogues reads them",
    )
    encoding_format: Literal["float", "base64"] = "float"


class LatticeStatesRequest(RowsRequest):
    """`POST /v1/lattice/states`: what the cells do on the way, which is much to tell of a row."""

    embeddings: list[list[Number]] | None = Field(None, min_length=1, max_length=8)
    texts: list[Text] | None = Field(None, min_length=1, max_length=8)
    lattice: Name | None = Field(None, description="its id in /v1/models; null: the first that is served")


class DecoderOptions(Body):
    """The options of all decoders; those of another than answers are refused."""

    decoder: DecoderName | None = Field(
        None, description="null: phrase_bank where a bank is served, else ret"
    )
    bank: Name | None = Field(
        None, description="phrase_bank, hybrid: its id in /v1/models; null: the first that is served"
    )
    lattice: Name | None = Field(
        None,
        description="its id in /v1/models: embeddings go through it first; null: of decode through none, of "
        "generate through the first that is served",
    )
    session_id: SessionId | None = Field(
        None, description="phrase_bank: answer as the next of a dialogue, and remember the answer; one row"
    )
    stream: bool = Field(
        False, strict=True, description="ret: server-sent events `text`, then `result` or `error`"
    )
    top_k: Count | None = Field(
        None, description="phrase_bank: candidates in each result; null: all that are listed"
    )
    method: Method | None = Field(
        None,
        description="phrase_bank: assembly method; null: the application's, and context_aware in a session",
    )
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
    explain: bool = Field(False, strict=True, description="hybrid: results list the candidates")


class DecodeRequest(DecoderOptions, RowsRequest):
    """`POST /v1/decode`: embeddings, or texts to be embedded first, to texts."""


class GenerateRequest(DecoderOptions):
    """`POST /v1/generate`: texts to texts, by one of the three pipelines."""

    texts: Annotated[list[Text], WithJsonSchema(ONE_OR_MORE_TEXTS)] = Field(
        min_length=1, description="one text or a list of texts"
    )
    mode: Literal["direct", "text_to_text", "hybrid"] = Field(
        "direct",
        description="direct: embedding, lattice, decoder. hybrid: the same from another teacher's embedding, "
        "through an adapter. text_to_text: no embedding; takes stream, max_length and task",
    )
    task: Name | None = Field(None, description="text_to_text: what it was trained for; null: its first")

    @field_validator("texts", mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


# The options of each decoder, and of text to text; others are refused.
OPTIONS: dict[Writer, tuple[str, ...]] = {
    "phrase_bank": ("top_k", "method", "bank", "session_id"),
    "ret": ("stream", "temperature", "top_p", "seed", "beam", "n", "max_length"),
    "hybrid": ("seed", "max_teacher_calls", "bank", "explain"),
    "text_to_text": ("stream", "max_length", "task"),
}
DECODING = ("decoder", "lattice")  # of what decodes embeddings, beside its decoder's own
GENERATION = (*DECODING, "session_id")


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
