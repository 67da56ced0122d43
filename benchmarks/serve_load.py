"""Load over HTTP for the benchmarks of the application: clients that wait for answers, and that do not."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import Sequence
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from cellular.types import FloatArray

TIMEOUT_S = 60.0  # a request without an answer by then hangs


class Request(NamedTuple):
    """What is posted."""

    path: str
    body: bytes


class Answer(NamedTuple):
    """What became of a request: status 0 is none. Times in seconds, `begun` on the monotonic clock."""

    begun: float
    seconds: float
    status: int


def sentences(number: int) -> list[str]:
    """English of Python's own documentation, the same on every machine."""
    lines = (" ".join(line.split()) for text in topics.values() for line in text.split(". "))
    return list(dict.fromkeys(line for line in lines if 40 < len(line) < 120))[:number]


def decode_requests(decoder: str | None = None, number: int = 500, **options: Any) -> list[Request]:
    """One text each."""
    chosen = options | ({"decoder": decoder} if decoder else {})
    return [post("/v1/decode", texts=[text], **chosen) for text in sentences(number)]


def post(path: str, **fields: Any) -> Request:
    """A request with a JSON body."""
    return Request(path, json.dumps(fields).encode())


async def closed_loop(url: str, requests: Sequence[Request], clients: int, seconds: float) -> list[Answer]:
    """Each client sends its next request when it has its answer; refused, it waits as long as it is told."""
    answers: list[Answer] = []
    turn = itertools.cycle(requests)
    until = time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < until:
            answer, wait_s = await _sent(session, next(turn))
            answers.append(answer)
            await asyncio.sleep(wait_s)

    async with _session(url) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return answers


async def open_loop(url: str, requests: Sequence[Request], rate: float, seconds: float) -> list[Answer]:
    """`rate` requests a second, whether those before are answered or not."""
    turn = itertools.cycle(requests)
    async with _session(url) as session, asyncio.TaskGroup() as group:
        start, tasks = time.monotonic(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(start + number / rate - time.monotonic())
            tasks.append(group.create_task(_sent(session, next(turn))))
    return [task.result()[0] for task in tasks]


def _session(url: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        f"{url}/",
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Content-Type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    )


async def _sent(session: aiohttp.ClientSession, request: Request) -> tuple[Answer, float]:
    """What became of it, and how long to wait before the next."""
    begun = time.monotonic()
    try:
        async with session.post(request.path.removeprefix("/"), data=request.body) as response:
            await response.read()
            status, wait_s = response.status, float(response.headers.get("Retry-After", 0))
    except (aiohttp.ClientError, TimeoutError):
        status, wait_s = 0, 1.0
    return Answer(begun, time.monotonic() - begun, status), wait_s


class Summary(NamedTuple):
    """Of many answers: accepted ones a second, quantiles in milliseconds, counts of the others.

    `cpu` is what the servers' processes computed for an accepted one, in milliseconds, where that was looked
    at: what else the machine does changes it little.
    """

    rate: float
    p50: float
    p99: float
    refused: int
    refused_p99: float
    failed: int
    cpu: float

    @classmethod
    def of(cls, answers: Sequence[Answer], cpu_s: float = math.nan) -> "Summary":
        """200 is accepted, 503 and 429 are refused, the rest failed."""
        accepted = [one for one in answers if one.status == 200]
        refused = [one for one in answers if one.status in (429, 503)]
        ends = [one.begun + one.seconds for one in answers]
        span = max(ends) - min(one.begun for one in answers)
        p50, p99 = np.percentile(_milliseconds(accepted), [50, 99])
        slowest = float(np.percentile(_milliseconds(refused), 99))
        failed = len(answers) - len(accepted) - len(refused)
        cpu = 1e3 * cpu_s / max(len(accepted), 1)
        return cls(len(accepted) / span, float(p50), float(p99), len(refused), slowest, failed, cpu)


def _milliseconds(answers: Sequence[Answer]) -> FloatArray:
    return 1e3 * np.array([one.seconds for one in answers] or [np.nan], np.float32)
