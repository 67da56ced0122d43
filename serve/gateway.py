"""The HTTP interface: checks a request, has its work done, writes the answer.

Knows nothing of Ray: a stage is what `serve.stages` says, and `serve.interface` makes an ordinary FastAPI
application of it.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import Response

from actors.decoding import RETResult
from cellular import __version__
from cellular.client.results import BankInfo
from cellular.types import FloatArray
from serve.banks import ServedBank
from serve.deadlines import Deadline
from serve.decoders import DECODERS
from serve.events import event, event_stream
from serve.flow import Flow, Job, Timings, timed
from serve.problems import ProblemError
from serve.schemas import (
    DecodeRequest,
    EmbeddingsRequest,
    GenerateRequest,
    LatticeStatesRequest,
    ProcessRequest,
    embedding_fields,
    model_fields,
)
from serve.settings import ServeConfig
from serve.stages import OverloadedError, Stage, UnavailableError
from serve.validation import check_options, check_texts, checked_embeddings, checked_turns

HEALTH_DEADLINE_S = 2.0


class Gateway:
    """The routes.

    Args:
        stages: those that are served, by the names of their deployments.
        config: of the application.
    """

    def __init__(self, stages: Mapping[str, Stage], config: ServeConfig) -> None:
        self.stages = stages
        self.config = config
        self.limits = config.limits
        self.flow = Flow(stages, config)

    async def start(self) -> None:
        """Wait until every stage runs, and learn what it serves.

        Raises:
            CellularError: something is for another teacher's vectors.
        """
        await self.flow.start()

    async def embeddings(self, request: EmbeddingsRequest) -> Response:
        """Embed texts: `POST /v1/embeddings`."""
        self._check_model(request)
        check_texts(request.input, "input", self.limits)
        async with Deadline(self.limits).kept():
            vectors = await self.flow.embed(request.input, {})
        words = sum(len(text.split()) for text in request.input)
        return json_response(
            {
                "object": "list",
                "data": embedding_fields(vectors, request.encoding_format),
                "model": self.flow.teacher["name"],
                "usage": {"prompt_tokens": words, "total_tokens": words},
            }
        )

    async def process(self, request: ProcessRequest) -> Response:
        """Send embeddings, or those of texts, through a lattice: `POST /v1/process`."""
        lattice, timings = self.flow.lattice(request.lattice), Timings()
        given = checked_embeddings(request, self.flow.dimension, self.limits)
        turns = checked_turns(request, self.flow.lattices[lattice]["lattice"], self.limits)
        async with Deadline(self.limits).kept():
            rows = given if given is not None else await self.flow.embed(request.texts or [], timings)
            vectors = await self.flow.process(rows, lattice, turns, timings)
        data = embedding_fields(vectors, request.encoding_format)
        return json_response({"lattice": lattice, "data": data, "timings": timings})

    async def lattice_states(self, request: LatticeStatesRequest) -> Response:
        """How far the cells of a lattice are from rest over its steps: `POST /v1/lattice/states`."""
        lattice = self.flow.lattice(request.lattice)
        given = checked_embeddings(request, self.flow.dimension, self.limits)
        async with Deadline(self.limits).kept():
            rows = given if given is not None else await self.flow.embed(request.texts or [], {})
            states = await self.stages["Lattice"].call("states", rows, lattice)
        return json_response({"lattice": lattice, "states": states})

    async def decode(self, request: DecodeRequest) -> Response:
        """Turn embeddings, or texts by way of their embeddings, into text: `POST /v1/decode`."""
        job = self.flow.job(request)
        check_options(request, job.decoder, self.flow.served[job.decoder], self.limits)
        given = checked_embeddings(request, self.flow.dimension, self.limits)
        return await self._decoded(job, given)

    async def generate(self, request: GenerateRequest) -> Response:
        """Texts for texts, by one of the three pipelines: `POST /v1/generate`."""
        check_texts(request.texts, "texts", self.limits)
        if request.mode == "text_to_text":
            check_options(request, "text_to_text", {}, self.limits)
            return await self._rewritten(request)
        job = self.flow.generation(request)
        check_options(request, job.decoder, self.flow.served[job.decoder], self.limits)
        return await self._decoded(job, None)

    async def models(self) -> Response:
        """Teachers, decoders, banks, checkpoints and lattices: `GET /v1/models`."""
        data = [model_fields(kind, described) for kind, described in self.flow.described()]
        return json_response({"object": "list", "data": data})

    async def stats(self) -> Response:
        """What every replica of every stage has done since it started: `GET /v1/stats`."""
        async with Deadline(self.limits).kept():
            found = await asyncio.gather(*(stage.every("statistics") for stage in self.stages.values()))
        return json_response({"stages": dict(zip(self.stages, found, strict=True))})

    async def health(self) -> Response:
        """That this Gateway lives: `GET /healthz`."""
        return json_response({"status": "alive", "version": __version__})

    async def ready(self) -> Response:
        """Whether every stage answers: `GET /readyz`, 200 if so, busy included, else 503."""
        states = await asyncio.gather(*map(self._state, self.stages.values()))
        worst = max(states, key=("ready", "busy", "unavailable").index)
        fields = {
            "status": worst,
            "stages": dict(zip(self.stages, states, strict=True)),
            "teacher": self.flow.teacher["name"],
            "banks": [bank_fields(self.flow.banks[name]) for name in self.flow.banks],
        }
        return json_response(fields, 503 if worst == "unavailable" else 200)

    async def _decoded(self, job: Job, given: FloatArray | None) -> Response:
        """The texts of embeddings, which are those of the request's texts where none are given."""
        deadline, timings = Deadline(self.limits), Timings()
        if job.request.stream:
            return await event_stream(self._events(job, given, deadline, timings))
        async with deadline.kept():
            embeddings = given if given is not None else await self.flow.embed_for(job, timings)
            results = await self.flow.run(job, embeddings, timings)
        return json_response(self._answer(job, results, timings))

    async def _events(
        self, job: Job, given: FloatArray | None, deadline: Deadline, timings: Timings
    ) -> AsyncGenerator[bytes]:
        """Each text's increments, then the answer that the request would have without `stream`."""
        async with deadline.kept():
            embeddings = given if given is not None else await self.flow.embed_for(job, timings)
            if job.lattice is not None:
                embeddings = await self.flow.process(embeddings, job.lattice, None, timings)
        stage, options = self.flow.decoder(job)
        increments = stage.stream("stream", embeddings, options)
        texts = [""] * len(embeddings)
        async for one in _increments(deadline.items(increments), texts, timings):
            yield one
        yield event("result", self._answer(job, map(RETResult, texts), timings))

    async def _rewritten(self, request: GenerateRequest) -> Response:
        """Text to text: no embedding of the teacher's is made."""
        stage, options = self.flow.rewriting(request)
        deadline, timings = Deadline(self.limits), Timings()

        def answer(texts: Iterable[str]) -> dict[str, object]:
            results = [{"text": text, "source": "text_to_text"} for text in texts]
            unused = dict.fromkeys(("lattice", "decoder", "bank"))
            return {"mode": request.mode, "results": results, "timings": timings, **unused}

        async def events() -> AsyncGenerator[bytes]:
            texts = [""] * len(request.texts)
            increments = deadline.items(stage.stream("stream", request.texts, options))
            async for one in _increments(increments, texts, timings):
                yield one
            yield event("result", answer(texts))

        if request.stream:
            return await event_stream(events())
        async with deadline.kept():
            with timed(timings, "decode_ms"):
                texts = await stage.call("generate", request.texts, options)
        if None in texts:
            raise too_long(texts.index(None))
        return json_response(answer(texts))

    def _answer(self, job: Job, results: Iterable[Any], timings: Timings) -> dict[str, object]:
        fields = DECODERS[job.decoder].fields
        answer: dict[str, object] = {
            "decoder": job.decoder,
            "results": [fields(result, job.request) for result in results],
            "lattice": job.lattice,
            "bank": bank_fields(job.bank),
            "timings": timings,
        }
        if isinstance(job.request, GenerateRequest):
            answer["mode"] = job.request.mode
        return answer

    async def _state(self, stage: Stage) -> str:
        try:
            async with asyncio.timeout(HEALTH_DEADLINE_S):
                await stage.ask("describe")
        except OverloadedError:
            return "busy"
        except (UnavailableError, TimeoutError):
            return "unavailable"
        return "ready"

    def _check_model(self, request: EmbeddingsRequest) -> None:
        name, dimension = self.flow.teacher["name"], self.flow.dimension
        if request.model not in (None, name):
            raise ProblemError(
                404, "model_not_found", f"no such model; this application serves {name}", pointer="/model"
            )
        if request.dimensions not in (None, dimension):
            raise ProblemError(
                400, "invalid_request", f"{name} has {dimension} dimensions", pointer="/dimensions"
            )


async def _increments(
    items: AsyncGenerator[tuple[int, str | None]], texts: list[str], timings: Timings
) -> AsyncGenerator[bytes]:
    """An event for each increment, which is added to its text."""
    with timed(timings, "decode_ms"):
        async with aclosing(items):
            async for number, text in items:
                if text is None:
                    raise too_long(number)
                texts[number] += text
                yield event("text", {"index": number, "text": text})


def bank_fields(bank: ServedBank | None) -> dict[str, object] | None:
    """One BankInfo, where a bank answers."""
    return bank and {key: bank.info[key] for key in BankInfo.model_fields}


def too_long(number: int) -> ProblemError:
    """What text to text cannot read."""
    detail = "more pieces than text_to_text reads, some 2,000 characters of English"
    return ProblemError(413, "text_too_long", detail, pointer=f"/texts/{number}")


def json_response(content: dict[str, object], status: int = 200) -> Response:
    """JSON, with NumPy rows written as they are: no list of Python floats is made."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")
