"""Micro-batches: what waits for a stage at the same time goes to it in one call.

A call between deployments costs milliseconds of processor time whatever it carries, so that one call a
request limits the throughput. The rule is that of Nagle 1984, RFC 896, with a call for each replica: what
comes while one of them has none leaves at once; what comes later waits until a call returns, one is full, or
it has waited long enough. What waits is divided among the replicas.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from typing import Any

import numpy as np

from cellular.types import FloatArray
from serve.problems import request_ids
from serve.settings import Gathering
from serve.stages import OverloadedError, Stage

Rows = FloatArray | list[Any]


@dataclass(eq=False)
class Request:
    """Rows, what is to be done with them, and where their results go."""

    rows: Rows
    work: tuple[Any, ...]  # the method, and its arguments after the rows
    results: asyncio.Future[Any]
    ids: tuple[str, ...]  # the requests of HTTP that it belongs to


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
        self._lone = 0  # calls that their one request makes itself

    @property
    def _calls(self) -> int:
        return len(self._travelling) + self._lone

    def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """Streams are not joined."""
        return self.stage.stream(method, *arguments)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What is not about rows is neither joined nor refused."""
        return await self.stage.ask(method, *arguments)

    async def every(self, method: str, *arguments: Any) -> list[Any]:
        """What is not about rows is neither joined nor refused."""
        return await self.stage.every(method, *arguments)

    def replicas(self) -> int:
        """The stage's."""
        return self.stage.replicas()

    async def call(self, method: str, rows: Any, *options: Any) -> Any:
        """The results of the caller's own rows."""
        if len(self._waiting) >= self.settings.queue:
            raise OverloadedError
        if not self._waiting and self._calls < min(self.stage.replicas(), self.settings.calls):
            return await self._alone(method, rows, *options)
        loop = asyncio.get_running_loop()
        request = Request(rows, (method, *options), loop.create_future(), request_ids.get())
        self._waiting.append(request)
        self._send()
        if request in self._waiting:
            loop.call_later(self.settings.patience_s, self._hurry, request)
        try:
            return await request.results
        except asyncio.CancelledError:
            self._leave(request)
            raise

    async def _alone(self, method: str, rows: Any, *options: Any) -> Any:
        """The results of a call that nothing can join: it needs no task of its own."""
        self._lone += 1
        try:
            return await self.stage.call(method, rows, *options)
        finally:
            self._lone -= 1
            if self._waiting:  # not at once: who leaves at the same time is not sent
                asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        replicas = self.stage.replicas()
        while self._waiting and self._calls < self.settings.calls:
            waiting = sum(len(one.rows) for one in self._waiting)
            if self._calls >= replicas and waiting < self.settings.rows:
                break
            self._depart(ceil(waiting / replicas))

    def _depart(self, rows: int) -> None:
        """Send the first that waits, and those behind it that want the same done, up to a number of rows."""
        batch = [self._waiting.popleft()]
        count = len(batch[0].rows)
        while self._waiting and self._waiting[0].work == batch[0].work:
            count += len(self._waiting[0].rows)
            if count > min(rows, self.settings.rows):
                break
            batch.append(self._waiting.popleft())
        task = asyncio.create_task(self._run(batch))
        self._travelling[task] = batch
        task.add_done_callback(self._returned)

    async def _run(self, batch: list[Request]) -> None:
        method, *options = batch[0].work
        request_ids.set(tuple(dict.fromkeys(id for one in batch for id in one.ids)))
        try:
            results = await self.stage.call(method, joined([one.rows for one in batch]), *options)
        except Exception as error:
            for one in batch:
                if not one.results.done():
                    one.results.set_exception(error)
            return
        for one, own in zip(batch, divided(results, [one.rows for one in batch]), strict=True):
            if not one.results.done():
                one.results.set_result(own)

    def _returned(self, task: asyncio.Task[None]) -> None:
        del self._travelling[task]
        self._send()

    def _hurry(self, request: Request) -> None:
        """Send what waits if the request, which has waited long enough, is still there."""
        while request in self._waiting and self._calls < self.settings.calls:
            self._depart(self.settings.rows)

    def _leave(self, request: Request) -> None:
        """Forget a caller that went away, and end a call that nobody waits for."""
        if request in self._waiting:
            self._waiting.remove(request)
        for task, batch in self._travelling.items():
            if request in batch and all(one.results.done() for one in batch):
                task.cancel()


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several requests, one after the other."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        return [row for part in parts for row in part]
    return np.concatenate(parts)


def divided(results: Any, parts: Sequence[Rows]) -> list[Any]:
    """The results of joined rows, by the requests that the rows came from."""
    ends = accumulate((len(part) for part in parts), initial=0)
    return [results[start:end] for start, end in pairwise(ends)]
