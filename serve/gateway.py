"""The HTTP interface: checks a request, calls each stage once with all of its rows, writes the answer.

Knows nothing of Ray: a stage is anything with `call`, and `http_app` is an ordinary FastAPI application.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import numpy as np
import orjson
from fastapi import FastAPI, Response

from cellular import __version__
from cellular.checks import check_embeddings
from cellular.decoders import DecodeResult
from cellular.errors import CellularError
from cellular.types import FloatArray
from serve.problems import BodyLimit, ProblemError, add_problem_handlers
from serve.schemas import (
    DecodeRequest,
    DecodeResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Health,
    Problem,
    embedding_fields,
)
from serve.settings import Limits

HEALTH_DEADLINE_S = 2.0


class OverloadedError(Exception):
    """A stage's queue is full."""


class UnavailableError(Exception):
    """A stage has no replica that answers."""


class Stage(Protocol):
    """A model behind a queue."""

    async def call(self, method: str, *arguments: object) -> Any:
        """The result of one method of one replica.

        Raises:
            OverloadedError, UnavailableError: the call never reached a replica, or the replica was lost.
        """


class Gateway:
    """The routes. Each stage is awaited before the next is called, so that a full queue is seen at once."""

    def __init__(self, embedder: Stage, decoder: Stage, limits: Limits) -> None:
        self.embedder = embedder
        self.decoder = decoder
        self.limits = limits
        self.teacher: dict[str, Any] = {}
        self.bank: dict[str, Any] = {}

    async def start(self) -> None:
        """Wait until both stages run, and learn what they serve.

        Raises:
            CellularError: the bank holds another teacher's vectors.
        """
        self.teacher = await self.embedder.call("describe")
        self.bank = await self.decoder.call("describe")
        if self.bank["fingerprint"] != self.teacher["fingerprint"]:
            raise CellularError(
                f"the bank holds vectors of {self.bank['fingerprint']}, but the Embedder runs "
                f"{self.teacher['fingerprint']}: set teacher to {self.bank['teacher']} or serve another bank"
            )

    async def embeddings(self, request: EmbeddingsRequest) -> Response:
        """Embed texts: `POST /v1/embeddings`."""
        self._check_model(request)
        self._check_texts(request.input, "input")
        async with self._answering():
            vectors: FloatArray = await self.embedder.call("encode", request.input)
        words = sum(len(text.split()) for text in request.input)
        return json_response(
            {
                "object": "list",
                "data": embedding_fields(vectors, request.encoding_format),
                "model": self.teacher["name"],
                "usage": {"prompt_tokens": words, "total_tokens": words},
            }
        )

    async def decode(self, request: DecodeRequest) -> Response:
        """Turn embeddings, or texts by way of their embeddings, into text: `POST /v1/decode`."""
        vectors = self._vectors(request)
        if request.texts is not None:
            self._check_texts(request.texts, "texts")
        listed = self.bank["listed_candidates"]
        if request.top_k is not None and request.top_k > listed:
            raise ProblemError(422, "invalid_request", f"top_k is at most {listed}", pointer="/top_k")
        start, embedded = time.perf_counter(), None
        async with self._answering():
            if vectors is None:
                vectors = await self.embedder.call("encode", request.texts)
                embedded = time.perf_counter()
            results = await self.decoder.call("decode", vectors, request.method)
        end = time.perf_counter()
        return json_response(
            {
                "results": [result_fields(result, request.top_k) for result in results],
                "bank": self._bank_fields(),
                "timings": {
                    "embed_ms": 1e3 * (embedded - start) if embedded else None,
                    "decode_ms": 1e3 * (end - (embedded or start)),
                },
            }
        )

    async def health(self) -> Response:
        """Whether every stage answers: `GET /healthz`, 200 if so, busy included, else 503."""
        names = ("Embedder", "PhraseBankDecoder")
        states = await asyncio.gather(*(self._state(stage) for stage in (self.embedder, self.decoder)))
        worst = max(states, key=("ready", "busy", "unavailable").index)
        fields = {
            "status": worst,
            "stages": dict(zip(names, states, strict=True)),
            "teacher": self.teacher["name"],
            "bank": self._bank_fields(),
        }
        return json_response(fields, 503 if worst == "unavailable" else 200)

    async def _state(self, stage: Stage) -> str:
        try:
            async with asyncio.timeout(HEALTH_DEADLINE_S):
                await stage.call("describe")
        except OverloadedError:
            return "busy"
        except (UnavailableError, TimeoutError):
            return "unavailable"
        return "ready"

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Keep the deadline, and turn a stage's refusal into 503 or 504."""
        wait = self.limits.retry_after_s
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                yield
        except OverloadedError:
            raise ProblemError(
                503, "overloaded", "too many requests wait already", retry_after_s=wait
            ) from None
        except UnavailableError:
            raise ProblemError(503, "unavailable", "a stage is not running", retry_after_s=wait) from None
        except TimeoutError:
            detail = f"no answer within {self.limits.deadline_s:g} s"
            raise ProblemError(504, "deadline_exceeded", detail) from None

    def _check_model(self, request: EmbeddingsRequest) -> None:
        name, dimension = self.teacher["name"], self.teacher["dimension"]
        if request.model != name:
            raise ProblemError(
                404, "model_not_found", f"no such model; this application serves {name}", pointer="/model"
            )
        if request.dimensions not in (None, dimension):
            raise ProblemError(
                400, "invalid_request", f"{name} has {dimension} dimensions", pointer="/dimensions"
            )

    def _check_texts(self, texts: Sequence[str], field: str) -> None:
        self._check_count(texts, field)
        for number, text in enumerate(texts):
            if len(text) > self.limits.max_text_characters:
                detail = f"{len(text)} characters; at most {self.limits.max_text_characters} are accepted"
                raise ProblemError(413, "text_too_long", detail, pointer=f"/{field}/{number}")

    def _check_count(self, rows: Sequence[object], field: str) -> None:
        if len(rows) > self.limits.max_batch:
            detail = f"{len(rows)} rows; at most {self.limits.max_batch} are accepted in one request"
            raise ProblemError(413, "batch_too_large", detail, pointer=f"/{field}")

    def _vectors(self, request: DecodeRequest) -> FloatArray | None:
        if request.embeddings is None:
            return None
        self._check_count(request.embeddings, "embeddings")
        dimension = self.bank["dimension"]
        for row, numbers in enumerate(request.embeddings):
            if len(numbers) != dimension:
                detail = f"row {row} has {len(numbers)} numbers; the bank's embeddings have {dimension}"
                raise ProblemError(422, "wrong_dimension", detail, pointer=f"/embeddings/{row}")
        try:
            with np.errstate(over="ignore"):  # a number such as 1e200 is refused, not warned of
                return check_embeddings(np.asarray(request.embeddings, np.float64), dimension)
        except ValueError as error:
            raise ProblemError(422, "invalid_embedding", str(error), pointer="/embeddings") from None

    def _bank_fields(self) -> dict[str, object]:
        return {key: self.bank[key] for key in ("version", "phrases", "dimension", "teacher")}


def http_app(gateway: Gateway) -> FastAPI:
    """The routes of a gateway.

    No /docs page: FastAPI's loads its scripts from another host. /openapi.json has the same.
    """
    app = FastAPI(title="cellular", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=gateway.limits.max_body_bytes)
    add_problem_handlers(app)
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (400, 404, 413, 422, 503, 504)
    }
    for path, route, model in (
        ("/v1/embeddings", gateway.embeddings, EmbeddingsResponse),
        ("/v1/decode", gateway.decode, DecodeResponse),
    ):
        app.post(path, response_model=model, responses=refusals)(route)
    app.get("/healthz", response_model=Health, responses={503: {"model": Health}})(gateway.health)
    return app


def result_fields(result: DecodeResult, top_k: int | None) -> dict[str, object]:
    """One element of `results`."""
    return {
        "text": result.text,
        "score": result.score,
        "source": result.source,
        "reason": result.reason,
        "candidates": [
            {"phrase": candidate.phrase, "score": candidate.score} for candidate in result.candidates[:top_k]
        ],
    }


def json_response(content: dict[str, object], status: int = 200) -> Response:
    """JSON, with NumPy rows written as they are: no list of Python floats is made."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
