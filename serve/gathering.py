"""Micro-batches: what waits for a stage at the same time goes to it in one call.

A call between deployments costs milliseconds of processor time whatever it carries, so that one call a
request limits the throughput. The rule is that of Nagle 1984, RFC 896: what comes while nothing is on its way
leaves at once; what comes later waits until that returns, a call is full, or it has waited long enough.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from cellular.types import FloatArray
from serve.gateway import OverloadedError, Stage
from serve.settings import Gathering


@dataclass(eq=False)
class Request:
    """Rows, what is to be done with them, and where their results go."""

    rows: FloatArray | list[str]
    work: tuple[Any, ...]  # the method, and its arguments after the rows
    results: asyncio.Future[Any]


class GatheringStage:
    """A stage whose calls of one method with the same options are joined.

    Methods take rows first, and return a sequence with a result for each.

    Args:
        stage: what is called.
        settings: sizes and times.
    """

    def __init__(self, stage: Stage, settings: Gathering) -> None:
        self.stage = stage
        self.settings = settings
        self._waiting: deque[Request] = deque()
        self._travelling: dict[asyncio.Task[None], list[Request]] = {}

    def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """Streams are not joined."""
        return self.stage.stream(method, *arguments)

    async def call(self, method: str, *arguments: Any) -> Any:
        """The results of the caller's own rows; a method without rows is called by itself."""
        if not arguments:
            return await self.stage.call(method)
        if len(self._waiting) >= self.settings.queue:
            raise OverloadedError
        rows, *options = arguments
        loop = asyncio.get_running_loop()
        request = Request(rows, (method, *options), loop.create_future())
        self._waiting.append(request)
        self._send()
        if request in self._waiting:
            loop.call_later(self.settings.patience_s, self._hurry, request)
        try:
            return await request.results
        except asyncio.CancelledError:
            self._leave(request)
            raise

    def _send(self, overdue: bool = False) -> None:
        while self._waiting and len(self._travelling) < self.settings.calls:
            waiting = sum(len(one.rows) for one in self._waiting)
            if self._travelling and waiting < self.settings.rows and not overdue:
                break
            batch = self._next_batch()
            task = asyncio.create_task(self._run(batch))
            self._travelling[task] = batch
            task.add_done_callback(self._returned)

    def _next_batch(self) -> list[Request]:
        """The first that waits, and those behind it that want the same done, in their order."""
        batch = [self._waiting.popleft()]
        count = len(batch[0].rows)
        while self._waiting and self._waiting[0].work == batch[0].work:
            count += len(self._waiting[0].rows)
            if count > self.settings.rows:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: list[Request]) -> None:
        method, *options = batch[0].work
        try:
            results = await self.stage.call(method, joined([one.rows for one in batch]), *options)
        except Exception as error:
            for one in batch:
                if not one.results.done():
                    one.results.set_exception(error)
            return
        ends = accumulate((len(one.rows) for one in batch), initial=0)
        for one, (start, end) in zip(batch, pairwise(ends), strict=True):
            if not one.results.done():
                one.results.set_result(results[start:end])

    def _returned(self, task: asyncio.Task[None]) -> None:
        del self._travelling[task]
        self._send()

    def _hurry(self, request: Request) -> None:
        """Send what waits if the request, which has waited long enough, is still there."""
        if request in self._waiting:
            self._send(overdue=True)

    def _leave(self, request: Request) -> None:
        """Forget a caller that went away, and end a call that nobody waits for."""
        if request in self._waiting:
            self._waiting.remove(request)
        for task, batch in self._travelling.items():
            if request in batch and all(one.results.done() for one in batch):
                task.cancel()


def joined(parts: Sequence[FloatArray | list[str]]) -> FloatArray | list[str]:
    """Rows of several requests, one after the other."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        return [row for part in parts for row in part]
    return np.concatenate(parts)
