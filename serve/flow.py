"""The way of a request through the stages: each is called once with all of its rows.

    texts ─ Embedder ─▶ embeddings ─ Lattice ─▶ embeddings ─ a decoder ─▶ texts

A stage that a request does not need is not called. Each is awaited before the next is called, so that a full
queue is seen at once.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np

from actors.decoding import TextOptions
from cellular.client.results import DecoderName
from cellular.decoders.context import Session
from cellular.types import FloatArray
from serve.banks import Banks, ServedBank, check_space
from serve.decoders import DECODERS
from serve.gathering import Rows
from serve.problems import ProblemError
from serve.schemas import DecodeRequest, GenerateRequest
from serve.sessions import SessionCache
from serve.settings import ServeConfig
from serve.stages import OnBank, Stage


class Timings(dict[str, float | None]):
    """Milliseconds in each stage, queueing included; None where it was not needed."""

    def __init__(self) -> None:
        super().__init__(embed_ms=None, process_ms=None, decode_ms=None)


class Job(NamedTuple):
    """What is to be done with embeddings.

    Attributes:
        request: what was asked for.
        decoder: who writes the texts.
        bank: from which bank, if from any.
        lattice: through which lattice first, if through any.
    """

    request: DecodeRequest | GenerateRequest
    decoder: DecoderName
    bank: ServedBank | None
    lattice: str | None = None


class Flow:
    """The stages, and what they serve.

    Args:
        stages: by the names of their deployments.
        config: of the application.
    """

    def __init__(self, stages: Mapping[str, Stage], config: ServeConfig) -> None:
        self.stages = stages
        self.decoders = {name: one for name, one in DECODERS.items() if one.deployment in stages}
        on_bank = {name: stages[one.deployment] for name, one in self.decoders.items() if one.on_bank}
        self.banks = Banks(config.banks, on_bank)
        self.sessions = (
            SessionCache(stages["SessionStore"], config.sessions) if "SessionStore" in stages else None
        )
        self.teacher: dict[str, Any] = {}
        self.adapter: dict[str, Any] | None = None
        self.served: dict[DecoderName, dict[str, Any]] = {}
        self.lattices: dict[str, dict[str, Any]] = {}
        self.text_to_text: dict[str, Any] = {}

    @property
    def dimension(self) -> int:
        """Of the teacher's embeddings."""
        dimension: int = self.teacher["dimension"]
        return dimension

    async def start(self) -> None:
        """Wait until every stage runs, and learn what it serves.

        Raises:
            CellularError: something is for another teacher's vectors.
        """
        self.teacher = await self.stages["Embedder"].ask("describe")
        self.adapter = self.teacher.pop("adapter", None)
        await self.banks.open(self.teacher["fingerprint"])
        for decoder, one in self.decoders.items():
            if one.on_bank:
                self.served[decoder] = self.banks[None].described[decoder]
            else:
                self.served[decoder] = await self.stages[one.deployment].ask("describe")
                check_space(decoder, self.served[decoder], self.teacher["fingerprint"])
        if "Lattice" in self.stages:
            self.lattices = await self.stages["Lattice"].ask("describe")
            for lattice, described in self.lattices.items():
                check_space(lattice, described, self.teacher["fingerprint"])
        if "TextToText" in self.stages:
            self.text_to_text = (await self.stages["TextToText"].ask("describe"))["text_to_text"]

    def job(self, request: DecodeRequest) -> Job:
        """What a decode asks for."""
        lattice = self.lattice(request.lattice) if request.lattice else None
        return self._job(request)._replace(lattice=lattice)

    def generation(self, request: GenerateRequest) -> Job:
        """What a generation asks for, in the modes that decode embeddings."""
        if request.mode == "hybrid" and self.adapter is None:
            raise ProblemError(422, "mode_not_served", "no adapter is served here", pointer="/mode")
        lattice = self.lattice(request.lattice) if self.lattices or request.lattice else None
        return self._job(request)._replace(lattice=lattice)

    def rewriting(self, request: GenerateRequest) -> tuple[Stage, TextOptions]:
        """Who answers texts with texts, and how it is asked."""
        if "TextToText" not in self.stages:
            raise ProblemError(422, "mode_not_served", "text_to_text is not served here", pointer="/mode")
        tasks = self.text_to_text["tasks"]
        if request.task not in (None, *tasks):
            detail = f"no task {request.task}; there is {', '.join(tasks)}"
            raise ProblemError(422, "invalid_request", detail, pointer="/task")
        return self.stages["TextToText"], TextOptions(request.task, request.max_length)

    def lattice(self, name: str | None) -> str:
        """A lattice that is served; None: the first."""
        name = name or next(iter(self.lattices), None)
        if name is None or name not in self.lattices:
            detail = f"no lattice {name or ''} is served here; there is {', '.join(self.lattices) or 'none'}"
            raise ProblemError(404, "lattice_not_found", detail, pointer="/lattice")
        return name

    def decoder(self, job: Job, session: Session | None = None) -> tuple[Stage, Any]:
        """Who writes the texts, and what goes with the embeddings."""
        decoder = DECODERS[job.decoder]
        options = decoder.options(job.request, session)
        return self.stages[decoder.deployment], OnBank(job.bank.version, options) if job.bank else options

    async def embed(self, texts: Sequence[str], timings: dict[str, float | None]) -> FloatArray:
        """Embeddings of texts, (N, D)."""
        with timed(timings, "embed_ms"):
            vectors: FloatArray = await self.stages["Embedder"].call("encode", texts)
        return vectors

    async def embed_for(self, job: Job, timings: dict[str, float | None]) -> FloatArray:
        """Embeddings of a job's texts, (N, D): in mode hybrid of another teacher, through the adapter."""
        request = job.request
        if not (isinstance(request, GenerateRequest) and request.mode == "hybrid"):
            return await self.embed(request.texts or [], timings)
        with timed(timings, "embed_ms"):
            vectors: FloatArray = await self.stages["Embedder"].call("encode_adapted", request.texts)
        return vectors

    async def process(
        self,
        embeddings: FloatArray,
        lattice: str,
        turns: Sequence[FloatArray] | None,
        timings: dict[str, float | None],
    ) -> FloatArray:
        """What a lattice makes of (N, D) embeddings, given the (T, D) turns before each."""
        method, rows = "process", cast(Rows, embeddings)
        if turns is not None:
            method = "process_turns"
            rows = [np.vstack([before, row]) for before, row in zip(turns, embeddings, strict=True)]
        with timed(timings, "process_ms"):
            vectors: FloatArray = await self.stages["Lattice"].call(method, rows, lattice)
        return vectors

    async def run(self, job: Job, embeddings: FloatArray, timings: dict[str, float | None]) -> list[Any]:
        """Results for (N, D) embeddings, which are turns of the request's session if it names one."""
        if job.request.session_id is None:
            return (await self._run(job, embeddings, None, timings))[0]
        if self.sessions is None:
            raise ProblemError(422, "no_sessions", "sessions are not served here", pointer="/session_id")

        async def answering(session: Session) -> tuple[list[Any], Session]:
            results, vectors = await self._run(job, embeddings, session, timings)
            if isinstance(job.request, GenerateRequest):
                session = session.after(embeddings[0], job.request.texts[0])
            return results, session.after(vectors[0], results[0].text)

        return await self.sessions.answer(job.request.session_id, answering)

    async def _run(
        self, job: Job, rows: FloatArray, session: Session | None, timings: dict[str, float | None]
    ) -> tuple[list[Any], FloatArray]:
        """The results, and the embeddings that were decoded."""
        if job.lattice is not None:
            turns = self._turns(job.lattice, session)
            rows = await self.process(rows, job.lattice, turns, timings)
        stage, options = self.decoder(job, session)
        with timed(timings, "decode_ms"):
            results: list[Any] = await stage.call("decode", rows, options)
        return results, rows

    def _turns(self, lattice: str, session: Session | None) -> list[FloatArray] | None:
        """The turns before the one row of a request, where a lattice reads them."""
        if session is None or not session.turns or not self.lattices[lattice]["lattice"]["history"]:
            return None
        return [np.stack([turn.vector() for turn in session.turns])]

    def _job(self, request: DecodeRequest | GenerateRequest) -> Job:
        decoder = request.decoder or next(iter(self.served), None)
        if decoder is None or decoder not in self.served:
            detail = f"no decoder {decoder or ''} is served here; there is {', '.join(self.served) or 'none'}"
            raise ProblemError(422, "decoder_not_served", detail, pointer="/decoder")
        bank = self.banks[request.bank] if DECODERS[decoder].on_bank else None
        return Job(request, decoder, bank)

    def described(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kind and description of everything that is served, each once."""
        yield "teacher", self.teacher
        seen: dict[tuple[str, str], dict[str, Any]] = {}
        for decoder, served in self.served.items():
            yield "decoder", {"name": decoder, "teacher": served["teacher"]["name"]}
            if checkpoint := served.get("checkpoint"):
                seen["checkpoint", checkpoint["name"]] = checkpoint
        for name in self.banks:
            seen["bank", name] = self.banks[name].info
        for described in self.lattices.values():
            seen["lattice", described["lattice"]["name"]] = described["lattice"]
        if self.adapter:
            seen["adapter", self.adapter["name"]] = self.adapter
        if self.text_to_text:
            seen["checkpoint", self.text_to_text["name"]] = self.text_to_text
        yield from ((kind, described) for (kind, _), described in seen.items())


@contextmanager
def timed(timings: dict[str, float | None], name: str) -> Iterator[None]:
    """Note the milliseconds of what is done."""
    start = time.perf_counter()
    yield
    timings[name] = 1e3 * (time.perf_counter() - start)
