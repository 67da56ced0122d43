"""The time that a request has, and what a client is told where a stage does not answer within it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from serve.problems import ProblemError, overloaded
from serve.settings import Limits
from serve.stages import OverloadedError, UnavailableError


class Deadline:
    """Starts when it is made."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._until = asyncio.get_running_loop().time() + limits.deadline_s

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """End what takes longer, and turn a stage's refusal into 503 or 504."""
        wait = self._limits.retry_after_s
        try:
            async with asyncio.timeout_at(self._until):
                yield
        except OverloadedError:
            raise overloaded(self._limits) from None
        except UnavailableError:
            raise ProblemError(503, "unavailable", "a stage is not running", retry_after_s=wait) from None
        except TimeoutError:
            detail = f"no answer within {self._limits.deadline_s:g} s"
            raise ProblemError(504, "deadline_exceeded", detail) from None

    async def items(self, items: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        """The items, while there is time: a timeout is of the task that waits, which may change."""
        while True:
            async with self.kept():
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item
