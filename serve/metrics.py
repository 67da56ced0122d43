"""What only the application can count, through ray.util.metrics: Prometheus finds it where it scrapes Ray.

Ray Serve itself counts HTTP requests by route and status, replicas, queues and calls. These are added, each
with the label `stage`, a deployment's name, which is its worker's class too:

    ray_cellular_requests_total         {outcome}  requests that needed the stage: ok, or the error's class
    ray_cellular_request_seconds                   what they waited for it, queues included (histogram)
    ray_cellular_rows_total                        texts or embeddings that the worker took
    ray_cellular_busy_seconds_total                time that it took for them
    ray_cellular_batch_rows                        in a batch (histogram)
    ray_cellular_batch_seconds                     for a batch (histogram)
    ray_cellular_answers_total          {source}   texts from the bank, from the cache, by RET, or a fallback
    ray_cellular_teacher_calls_total               texts that the teacher judged for these answers
    ray_cellular_sessions                          sessions in memory

Ray adds up a histogram's values as if each were in the middle of its bucket: what is summed has a counter. A
record takes two or three microseconds, a batch makes at most seven.
"""

import time
from collections import Counter as CounterOf
from collections.abc import AsyncGenerator, Callable, Iterator, Sized
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from ray.util.metrics import Counter, Gauge, Histogram

from serve.stages import Stage

SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
ROWS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]
Results = TypeVar("Results")


class WorkerMetrics:
    """What one worker computes, counted where it computes it.

    Args:
        stage: the worker's class name.
    """

    def __init__(self, stage: str) -> None:
        labels = ("stage",)
        self._rows = Counter("cellular_rows", "texts or embeddings that a worker took", labels)
        self._busy = Counter("cellular_busy_seconds", "time that it took for them", labels)
        self._batch_rows = Histogram("cellular_batch_rows", "texts or embeddings in a batch", ROWS, labels)
        self._batch_seconds = Histogram("cellular_batch_seconds", "time of a batch", SECONDS, labels)
        self._answers = Counter("cellular_answers", "texts by where they are from", ("stage", "source"))
        self._teacher_calls = Counter("cellular_teacher_calls", "texts that the teacher judged", labels)
        for metric in vars(self).values():
            metric.set_default_tags({"stage": stage})

    def measured(self, work: Callable[..., Results], rows: Sized, *options: object) -> Results:
        """The results of `work(rows, *options)`, a batch."""
        start = time.perf_counter()
        results = work(rows, *options)
        seconds = time.perf_counter() - start
        self._busy.inc(seconds)
        self._batch_seconds.observe(seconds)
        self._rows.inc(len(rows))
        self._batch_rows.observe(len(rows))
        if isinstance(results, list):
            self._count(results)
        return results

    def _count(self, results: list[Any]) -> None:
        sources = CounterOf(source for one in results if (source := getattr(one, "source", None)))
        for source, count in sources.items():
            self._answers.inc(count, {"source": source})
        if calls := sum(getattr(one, "teacher_calls", 0) for one in results):
            self._teacher_calls.inc(calls)


class MeasuredStage:
    """A stage whose requests are counted and timed as its callers see them."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self._requests = Counter("cellular_requests", "requests that needed a stage", ("stage", "outcome"))
        self._seconds = Histogram("cellular_request_seconds", "queues included", SECONDS, ("stage",))
        for metric in (self._requests, self._seconds):
            metric.set_default_tags({"stage": name})

    async def call(self, method: str, rows: Any, *options: Any) -> Any:
        """The stage's answer."""
        with self._measured():
            return await self.stage.call(method, rows, *options)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What is not about rows is no request, and not counted."""
        return await self.stage.ask(method, *arguments)

    async def every(self, method: str, *arguments: Any) -> list[Any]:
        """What is not about rows is no request, and not counted."""
        return await self.stage.every(method, *arguments)

    async def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """The stage's stream, timed to its end."""
        with self._measured():
            async with aclosing(self.stage.stream(method, *arguments)) as items:
                async for item in items:
                    yield item

    def replicas(self) -> int:
        """The stage's."""
        return self.stage.replicas()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        start, outcome = time.perf_counter(), "ok"
        try:
            yield
        except BaseException as error:  # one that is cancelled counts too
            outcome = type(error).__name__
            raise
        finally:
            self._seconds.observe(time.perf_counter() - start)
            self._requests.inc(1, {"outcome": outcome})


def session_gauge() -> Gauge:
    """The number of sessions in memory, to be set by what holds them."""
    gauge = Gauge("cellular_sessions", "sessions in memory", ("stage",))
    gauge.set_default_tags({"stage": "SessionStore"})
    return gauge
