"""What the deployments run: workers behind queues, and handles as the stages that they call.

Beside `app` the only module that imports Ray Serve. The worker's class is an argument: a replica imports its
own and no other's libraries.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from actors.decoding import RETOptions
from cellular.client.results import DecoderName
from cellular.types import FloatArray
from serve.gateway import Gateway, OverloadedError, Stage, UnavailableError
from serve.gathering import GatheringStage
from serve.interface import http_app
from serve.settings import Gathering, Interface, Limits

if TYPE_CHECKING:
    from actors.embedder import Embedder
    from actors.ret_decoder import RETDecoder
    from cellular.config import TeacherConfig


class Decoder(Protocol):
    """A worker that turns embeddings into texts."""

    def decode(self, embeddings: FloatArray, options: Any) -> Sequence[Any]:
        """A result for each row."""

    def describe(self) -> dict[str, Any]:
        """What it answers from."""


class EmbedderReplica:
    """Embedder behind a queue: requests that wait at the same time are encoded together."""

    def __init__(self, embedder: type["Embedder"], teacher: "TeacherConfig") -> None:
        self.embedder = embedder(teacher)

    def reconfigure(self, batching: dict[str, float]) -> None:
        """Take over `user_config`, without a restart."""
        configure_batching(self.encode, batching)

    @serve.batch
    async def encode(self, requests: list[list[str]]) -> list[FloatArray]:
        """Embed the texts of several requests in one call."""
        texts = [text for request in requests for text in request]
        vectors = await asyncio.to_thread(self.embedder.encode, texts)
        return np.split(vectors, boundaries(requests))

    async def describe(self) -> dict[str, Any]:
        """The teacher's name, dimension and fingerprint."""
        teacher = self.embedder.teacher
        return {"name": teacher.name, "dimension": teacher.dimension, "fingerprint": teacher.fingerprint}


class DecoderReplica:
    """A decoder behind a queue: requests that wait at the same time are decoded together."""

    def __init__(self, decoder: type, *arguments: object) -> None:
        self.decoder: Decoder = decoder(*arguments)

    def reconfigure(self, batching: dict[str, float]) -> None:
        """Take over `user_config`, without a restart."""
        configure_batching(self.decode_requests, batching)

    async def decode(self, embeddings: FloatArray, options: Any) -> list[Any]:
        """Turn (N, D) embeddings into texts."""
        return await self.decode_requests((embeddings, options))

    @serve.batch
    async def decode_requests(self, requests: list[tuple[FloatArray, Any]]) -> list[list[Any]]:
        """Decode the rows of several requests, in one call for each set of options among them."""
        answers: dict[int, list[Any]] = {}
        for options in {options for _, options in requests}:
            chosen = [number for number, request in enumerate(requests) if request[1] == options]
            rows = np.concatenate([requests[number][0] for number in chosen])
            results = iter(await asyncio.to_thread(self.decoder.decode, rows, options))
            answers |= {number: list(islice(results, len(requests[number][0]))) for number in chosen}
        return [answers[number] for number in range(len(requests))]

    async def describe(self) -> dict[str, Any]:
        """What it answers from."""
        return self.decoder.describe()


class RETReplica(DecoderReplica):
    """RETDecoder behind a queue; streams are written beside the batches."""

    decoder: "RETDecoder"

    async def stream(self, embeddings: FloatArray, options: RETOptions) -> AsyncGenerator[tuple[int, str]]:
        """Numbers of rows and increments of their texts; the work ends when the caller leaves."""
        increments = self.decoder.stream(embeddings, options)
        while (increment := await asyncio.to_thread(next, increments, None)) is not None:
            yield increment


class HybridReplica(DecoderReplica):
    """HybridDecoder behind a queue.

    Holds the bank and RET, but lets the Embedder's deployment judge: one call is little beside the embedding
    of a batch of candidates; the teacher, by far the most work, is loaded once and scales by its own load.
    """

    async def __init__(  # type: ignore[misc]
        self, embedder: DeploymentHandle[Any], decoder: type, *arguments: object
    ) -> None:
        stage = HandleStage(embedder)
        teacher = HandleTeacher(stage, await stage.call("describe"))
        # In a thread, since the teacher's answers need this event loop.
        await asyncio.to_thread(super().__init__, decoder, *arguments, teacher)


class GatewayReplica(Gateway):
    """Gateway whose stages are deployments."""

    async def __init__(  # type: ignore[misc]
        self,
        embedder: DeploymentHandle[Any],
        decoders: dict[DecoderName, DeploymentHandle[Any]],
        limits: Limits,
        gathering: Gathering,
        interface: Interface,
    ) -> None:
        def stage(handle: DeploymentHandle[Any]) -> Stage:
            return GatheringStage(HandleStage(handle), gathering)

        super().__init__(stage(embedder), {name: stage(one) for name, one in decoders.items()}, limits)
        self.interface = interface
        await self.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        return http_app(self, self.interface)


class HandleStage:
    """A deployment's handle as the stage that a Gateway knows."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self.handle = handle
        self.streaming = handle.options(stream=True)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Await one call; a response is never handed on, which would pass by the limit on the queue."""
        response = getattr(self.handle, method).remote(*arguments)
        try:
            with refusals():
                return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """What a generator method yields."""
        response = getattr(self.streaming, method).remote(*arguments)
        try:
            with refusals():
                async for item in response:
                    yield item
        except (asyncio.CancelledError, GeneratorExit):
            response.cancel()
            raise


class HandleTeacher:
    """The Embedder's deployment as the teacher of a decoder that runs in a thread beside this event loop."""

    def __init__(self, embedder: HandleStage, described: dict[str, Any]) -> None:
        self.name: str = described["name"]
        self.dimension: int = described["dimension"]
        self.fingerprint: str = described["fingerprint"]
        self._embedder = embedder
        self._loop = asyncio.get_running_loop()

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length, in one call."""
        call = self._embedder.call("encode", list(texts))
        vectors: FloatArray = asyncio.run_coroutine_threadsafe(call, self._loop).result()
        return vectors


@contextmanager
def refusals() -> Iterator[None]:
    """Ray's exceptions for a full queue and a lost replica as the Gateway's."""
    try:
        yield
    except BackPressureError as error:
        raise OverloadedError from error
    except (RayServeException, RayActorError) as error:
        raise UnavailableError from error


def boundaries(requests: Sequence[Sequence[object]]) -> list[int]:
    """Where each request but the first starts in the joined rows."""
    return list(accumulate(len(request) for request in requests))[:-1]


def configure_batching(method: Any, batching: dict[str, float]) -> None:
    """Set how many requests a `serve.batch` method joins, and how long the first waits for the others."""
    method.set_max_batch_size(int(batching["max_batch_size"]))
    method.set_batch_wait_timeout_s(batching["batch_wait_timeout_s"])
