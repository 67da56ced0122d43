"""Handles of Ray Serve's deployments as the stages that a Gateway knows."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayActorError
from ray.serve.context import _get_serve_request_context, _serve_request_context
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from cellular.types import FloatArray
from serve.problems import request_ids
from serve.stages import OnBank, OverloadedError, Stage, UnavailableError

if TYPE_CHECKING:
    from cellular.adapter import Space


ATTEMPTS = 3  # of a call whose replica is lost on the way


class HandleStage:
    """A deployment behind its handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self.handle = handle

    async def call(self, method: str, rows: Any, *options: Any) -> Any:
        """Await one call; a response is never handed on, which would pass by the limit on the queue."""
        return await self.ask(method, rows, *options)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Await one call, and repeat it where its replica is lost: stages may do the same twice."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._ask(method, arguments)
            except RayActorError:
                continue
        with refusals():
            return await self._ask(method, arguments)

    async def every(self, method: str, *arguments: Any) -> list[Any]:
        """Past the queues: for what is seldom and small."""
        with refusals():
            results: list[Any] = await self.handle.broadcast(method, *arguments).results_async()
            return results

    async def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """What a generator method yields."""
        handle = self._handle(arguments).options(stream=True)
        with requests_named():
            response = getattr(handle, method).remote(*arguments)
        try:
            with refusals():
                async for item in response:
                    yield item
        except (asyncio.CancelledError, GeneratorExit):
            response.cancel()
            raise

    def replicas(self) -> int:
        """Those that the handle's router chooses from, for which Ray Serve has no public word."""
        router = getattr(self.handle._router, "_asyncio_router", None)
        chooser = getattr(router, "_request_router", None)
        return max(1, len(chooser.curr_replicas)) if chooser else 1

    async def _ask(self, method: str, arguments: Sequence[Any]) -> Any:
        with requests_named():
            response = getattr(self._handle(arguments), method).remote(*arguments)
        try:
            return await response
        except BackPressureError as error:
            raise OverloadedError from error
        except asyncio.CancelledError:
            response.cancel()
            raise

    def _handle(self, arguments: Sequence[Any]) -> DeploymentHandle[Any]:
        """Of a call on a bank goes where that bank is open already."""
        on = arguments[-1] if arguments else None
        if not isinstance(on, OnBank):
            return self.handle
        return self.handle.options(multiplexed_model_id=on.bank.id)


class StageTeacher:
    """A stage as the teacher of a decoder that runs in a thread beside this event loop."""

    def __init__(self, embedder: Stage, space: "Space") -> None:
        self.name, self.fingerprint, self.dimension = space.name, space.fingerprint, space.dimension
        self._embedder = embedder
        self._loop = asyncio.get_running_loop()

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length, in one call."""
        call = self._embedder.call("encode", list(texts))
        vectors: FloatArray = asyncio.run_coroutine_threadsafe(call, self._loop).result()
        return vectors


@contextmanager
def requests_named() -> Iterator[None]:
    """Calls of the block carry the ids of all requests that they work for into the log of who is called.

    They are nobody's child: else Ray cancels all that is joined when the client of one request hangs up.
    """
    context = replace(
        _get_serve_request_context(),
        request_id=",".join(request_ids.get()),
        _internal_request_id="",
        cancel_on_parent_request_cancel=False,
    )
    token = _serve_request_context.set(context)  # type: ignore[arg-type]
    try:
        yield
    finally:
        _serve_request_context.reset(token)


def named_requests() -> tuple[str, ...]:
    """The requests that the call at hand works for: what its caller's `requests_named` sent."""
    return request_ids.get() or (_get_serve_request_context().request_id,)


@contextmanager
def refusals() -> Iterator[None]:
    """Ray's exceptions for a full queue and a lost replica as the Gateway's."""
    try:
        yield
    except BackPressureError as error:
        raise OverloadedError from error
    except (RayServeException, RayActorError) as error:
        raise UnavailableError from error
