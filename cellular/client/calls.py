"""Requests to the HTTP interface and how their answers are read, without a word on how they travel."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic, Literal, TypedDict, TypeVar

import httpx
import numpy as np
import orjson
from httpx_sse import ServerSentEvent
from numpy.typing import ArrayLike
from pydantic import BaseModel, ValidationError

from cellular.client.results import (
    DecodeResponse,
    DecoderName,
    EmbeddingsResponse,
    GenerateResponse,
    ModelList,
    Problem,
    ProcessResponse,
    Stats,
)
from cellular.errors import CellularError
from cellular.types import FloatArray

Answer = TypeVar("Answer")
Mode = Literal["direct", "text_to_text", "hybrid"]
Method = Literal["greedy", "weighted", "beam_search", "context_aware"]


class APIError(CellularError):
    """A request that got no answer, or was refused.

    Attributes:
        problem: the server's problem document; None where no answer came.
    """

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class Increment(BaseModel):
    """A part of the text number `index`, as it is written."""

    index: int
    text: str


class ProcessOptions(TypedDict, total=False):
    """Options of `POST /v1/process`; /docs explains each."""

    lattice: str


class DecoderOptions(TypedDict, total=False):
    """Options of the decoders; /docs explains each."""

    decoder: DecoderName
    bank: str
    lattice: str
    session_id: str
    explain: bool
    top_k: int
    method: Method
    temperature: float
    top_p: float
    seed: int
    beam: int
    n: int
    max_length: int
    max_teacher_calls: int


class GenerateOptions(DecoderOptions, total=False):
    """Options of `POST /v1/generate`; /docs explains each."""

    mode: Mode
    task: str


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request.

    Attributes:
        method: of HTTP.
        path: on the server.
        read: makes the answer of a body.
        body: to be sent as JSON; None: no body.
    """

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[bytes | str], Answer]
    body: Mapping[str, object] | None = None

    def content(self) -> bytes | None:
        """The body as it travels; arrays are written without a list of Python floats."""
        return None if self.body is None else orjson.dumps(self.body, option=orjson.OPT_SERIALIZE_NUMPY)

    def event(self, sent: ServerSentEvent) -> Increment | Answer:
        """What one server-sent event says.

        Raises:
            APIError: that the stream failed.
        """
        if sent.event == "text":
            return Increment.model_validate_json(sent.data)
        if sent.event == "result":
            return self.read(sent.data)
        raise refusal(Problem.model_validate_json(sent.data))


def embeddings_call(texts: str | Sequence[str]) -> Call[FloatArray]:
    """`POST /v1/embeddings`."""
    body = {"input": listed(texts), "encoding_format": "base64"}
    return Call("POST", "/v1/embeddings", lambda data: vectors(EmbeddingsResponse, data), body)


def process_call(
    texts: str | Sequence[str] | None,
    embeddings: ArrayLike | None,
    earlier: Sequence[ArrayLike] | None,
    options: ProcessOptions,
) -> Call[FloatArray]:
    """`POST /v1/process`."""
    turns = None if earlier is None else [rows(one) for one in earlier]
    body = source(texts, embeddings) | {"encoding_format": "base64", "earlier": turns} | dict(options)
    return Call("POST", "/v1/process", lambda data: vectors(ProcessResponse, data), body)


def decode_call(
    texts: str | Sequence[str] | None, embeddings: ArrayLike | None, options: DecoderOptions, stream: bool
) -> Call[DecodeResponse]:
    """`POST /v1/decode`."""
    body = source(texts, embeddings) | {"stream": stream} | dict(options)
    return Call("POST", "/v1/decode", DecodeResponse.model_validate_json, body)


def generate_call(
    texts: str | Sequence[str], options: GenerateOptions, stream: bool
) -> Call[GenerateResponse]:
    """`POST /v1/generate`."""
    body = {"texts": listed(texts), "stream": stream} | dict(options)
    return Call("POST", "/v1/generate", GenerateResponse.model_validate_json, body)


MODELS = Call("GET", "/v1/models", ModelList.model_validate_json)
STATS = Call("GET", "/v1/stats", Stats.model_validate_json)


def listed(texts: str | Sequence[str]) -> list[str]:
    """One text as a list of one."""
    return [texts] if isinstance(texts, str) else list(texts)


def source(texts: str | Sequence[str] | None, embeddings: ArrayLike | None) -> dict[str, object]:
    """What a request is about; the server refuses both and none."""
    given: dict[str, object] = {}
    if texts is not None:
        given["texts"] = listed(texts)
    if embeddings is not None:
        given["embeddings"] = rows(embeddings)
    return given


def rows(embeddings: ArrayLike) -> FloatArray:
    """(N, D) float32, contiguous; a single (D,) is a row."""
    return np.atleast_2d(np.ascontiguousarray(embeddings, np.float32))


def vectors(shape: type[EmbeddingsResponse] | type[ProcessResponse], data: bytes | str) -> FloatArray:
    """(N, D) float32 of an answer in base64."""
    entries = shape.model_validate_json(data).data
    return np.stack([np.frombuffer(base64.b64decode(str(entry.embedding)), "<f4") for entry in entries])


def refusal(problem: Problem) -> APIError:
    """The exception for a problem document."""
    return APIError(f"{problem.status} {problem.code}: {problem.detail}", problem)


def refusal_of(response: httpx.Response) -> APIError:
    """The exception for a response; those of proxies are no problem documents."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        status = HTTPStatus(response.status_code)
        detail = response.text[:200] or status.phrase
        problem = Problem(title=status.phrase, status=status, detail=detail, code=status.name.lower())
    return refusal(problem)
