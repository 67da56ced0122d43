"""The HTTP interface: checks a request, calls each stage once with all of its rows, writes the answer.

Knows nothing of Ray: a stage is anything with `call` and `stream`. The routes are in `serve.interface`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

import orjson
from fastapi import Response

from actors.decoding import RETResult
from cellular.client.results import DecoderName
from cellular.errors import CellularError
from cellular.types import FloatArray
from serve.decoders import DECODERS
from serve.events import event, event_stream
from serve.problems import ProblemError
from serve.schemas import DecodeRequest, EmbeddingsRequest, embedding_fields, model_fields
from serve.settings import Limits
from serve.validation import check_options, check_texts, checked_embeddings

HEALTH_DEADLINE_S = 2.0


class OverloadedError(Exception):
    """A stage's queue is full."""


class UnavailableError(Exception):
    """A stage has no replica that answers."""


class Stage(Protocol):
    """A model behind a queue. Raises OverloadedError if that is full, UnavailableError for a lost replica."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """The result of one method of one replica."""

    def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """What a generator method of one replica yields; closing the generator ends its work."""


class Gateway:
    """The routes. Each stage is awaited before the next is called, so that a full queue is seen at once.

    Args:
        embedder: the teacher.
        decoders: at least one; the first in the order of DECODERS answers where a request names none.
        limits: of a request.
    """

    def __init__(self, embedder: Stage, decoders: Mapping[DecoderName, Stage], limits: Limits) -> None:
        self.embedder = embedder
        self.decoders: dict[DecoderName, Stage] = {
            name: decoders[name] for name in DECODERS if name in decoders
        }
        self.limits = limits
        self.teacher: dict[str, Any] = {}
        self.served: dict[DecoderName, dict[str, Any]] = {}

    async def start(self) -> None:
        """Wait until every stage runs, and learn what it serves.

        Raises:
            CellularError: a decoder is for another teacher's vectors.
        """
        self.teacher = await self.embedder.call("describe")
        for name, decoder in self.decoders.items():
            self.served[name] = await decoder.call("describe")
            made_for = self.served[name]["teacher"]
            if made_for["fingerprint"] != self.teacher["fingerprint"]:
                raise CellularError(
                    f"{name} is for vectors of {made_for['fingerprint']}, but the Embedder runs "
                    f"{self.teacher['fingerprint']}: set teacher to {made_for['name']} or serve another"
                )

    async def embeddings(self, request: EmbeddingsRequest) -> Response:
        """Embed texts: `POST /v1/embeddings`."""
        self._check_model(request)
        check_texts(request.input, "input", self.limits)
        async with self._answering(self._deadline()):
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
        name = self._decoder(request)
        check_options(request, name, self.served[name], self.limits)
        given = checked_embeddings(request, self.teacher["dimension"], self.limits)
        if request.stream:
            return await event_stream(self._events(name, request, given))
        async with self._answering(self._deadline()):
            embeddings, embed_ms = await self._embedded(request, given)
            start = time.perf_counter()
            options = DECODERS[name].options(request)
            results = await self.decoders[name].call("decode", embeddings, options)
        timings = {"embed_ms": embed_ms, "decode_ms": milliseconds_since(start)}
        return json_response(self._answer(name, request, results, timings))

    async def models(self) -> Response:
        """Teachers, decoders, banks and checkpoints: `GET /v1/models`."""
        models = [model_fields("teacher", self.teacher)]
        for name, served in self.served.items():
            models.append(model_fields("decoder", {"name": name, "teacher": served["teacher"]["name"]}))
            models += [model_fields(kind, served[kind]) for kind in ("bank", "checkpoint") if kind in served]
        unique = {(model["kind"], model["id"]): model for model in models}
        return json_response({"object": "list", "data": list(unique.values())})

    async def health(self) -> Response:
        """Whether every stage answers: `GET /healthz`, 200 if so, busy included, else 503."""
        stages = {"Embedder": self.embedder}
        stages |= {DECODERS[name].deployment: stage for name, stage in self.decoders.items()}
        states = await asyncio.gather(*map(self._state, stages.values()))
        worst = max(states, key=("ready", "busy", "unavailable").index)
        fields = {
            "status": worst,
            "stages": dict(zip(stages, states, strict=True)),
            "teacher": self.teacher["name"],
            "bank": self._bank("phrase_bank") or self._bank("hybrid"),
        }
        return json_response(fields, 503 if worst == "unavailable" else 200)

    async def _events(
        self, name: DecoderName, request: DecodeRequest, given: FloatArray | None
    ) -> AsyncGenerator[bytes]:
        """Each text's increments, then the answer that the request would have without `stream`."""
        until = self._deadline()
        async with self._answering(until):
            embeddings, embed_ms = await self._embedded(request, given)
        texts, start = [""] * len(embeddings), time.perf_counter()
        options = DECODERS[name].options(request)
        async with aclosing(self.decoders[name].stream("stream", embeddings, options)) as increments:
            async for number, text in self._in_time(increments, until):
                texts[number] += text
                yield event("text", {"index": number, "text": text})
        timings = {"embed_ms": embed_ms, "decode_ms": milliseconds_since(start)}
        yield event("result", self._answer(name, request, map(RETResult, texts), timings))

    async def _in_time(self, items: AsyncGenerator[Any], until: float) -> AsyncGenerator[Any]:
        """The items, while there is time: the deadline is of the task that waits, which may change."""
        while True:
            async with self._answering(until):
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item

    async def _embedded(
        self, request: DecodeRequest, given: FloatArray | None
    ) -> tuple[FloatArray, float | None]:
        """The embeddings that were sent, or those of the texts and the milliseconds that they took."""
        if given is not None:
            return given, None
        start = time.perf_counter()
        vectors: FloatArray = await self.embedder.call("encode", request.texts)
        return vectors, milliseconds_since(start)

    def _answer(
        self,
        name: DecoderName,
        request: DecodeRequest,
        results: Iterable[Any],
        timings: dict[str, float | None],
    ) -> dict[str, object]:
        return {
            "decoder": name,
            "results": [DECODERS[name].fields(result, request) for result in results],
            "bank": self._bank(name),
            "timings": timings,
        }

    def _bank(self, name: DecoderName) -> dict[str, object] | None:
        bank = self.served.get(name, {}).get("bank")
        return bank and {key: bank[key] for key in ("version", "phrases", "dimension", "teacher")}

    async def _state(self, stage: Stage) -> str:
        try:
            async with asyncio.timeout(HEALTH_DEADLINE_S):
                await stage.call("describe")
        except OverloadedError:
            return "busy"
        except (UnavailableError, TimeoutError):
            return "unavailable"
        return "ready"

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.limits.deadline_s

    @asynccontextmanager
    async def _answering(self, until: float) -> AsyncIterator[None]:
        """Keep the deadline, and turn a stage's refusal into 503 or 504."""
        wait = self.limits.retry_after_s
        try:
            async with asyncio.timeout_at(until):
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

    def _decoder(self, request: DecodeRequest) -> DecoderName:
        name = request.decoder or next(iter(self.decoders))
        if name not in self.decoders:
            detail = f"{name} is not served here; {', '.join(self.decoders)} are"
            raise ProblemError(422, "decoder_not_served", detail, pointer="/decoder")
        return name

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


def milliseconds_since(start: float) -> float:
    """Since a reading of `time.perf_counter`."""
    return 1e3 * (time.perf_counter() - start)


def json_response(content: dict[str, object], status: int = 200) -> Response:
    """JSON, with NumPy rows written as they are: no list of Python floats is made."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
