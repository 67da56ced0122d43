"""Requests that wait for a stage together share its calls, and nothing else."""

import asyncio

import numpy as np
import pytest

from serve.gathering import GatheringStage
from serve.settings import Gathering
from serve.stages import OverloadedError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class HeldStage:
    """Answers a row with itself and the options, once `open` is set; notes the rows of each call."""

    def __init__(self):
        self.open = asyncio.Event()
        self.calls = []
        self.cancelled = 0
        self.failure = None
        self.width = 1

    def replicas(self):
        return self.width

    async def call(self, method, *arguments):
        self.calls.append((method, *arguments))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        rows, *options = arguments
        return [(row, *options) for row in rows]

    async def ask(self, method, *arguments):
        self.calls.append((method, *arguments))


def gathering(stage, **settings):
    return GatheringStage(stage, Gathering(**({"rows": 8, "patience_s": 60} | settings)))


async def turns(number=10):
    """Let everything that can run do so."""
    for _ in range(number):
        await asyncio.sleep(0)


def requests(stage, *rows, options=()):
    return [asyncio.create_task(stage.call("encode", one, *options)) for one in rows]


async def test_a_lone_request_leaves_at_once_and_what_comes_meanwhile_shares_the_next_call():
    held = HeldStage()
    stage = gathering(held)
    tasks = requests(stage, ["a"], ["b", "c"], ["d"])
    await turns()
    assert held.calls == [("encode", ["a"])]
    held.open.set()
    assert await asyncio.gather(*tasks) == [[("a",)], [("b",), ("c",)], [("d",)]]
    assert held.calls[1:] == [("encode", ["b", "c", "d"])]


async def test_arrays_are_joined_and_divided_by_rows():
    held = HeldStage()
    stage = gathering(held, rows=100)
    parts = [np.full((count, 2), count, np.float32) for count in (1, 3, 2)]
    tasks = requests(stage, *parts)
    await turns()
    held.open.set()
    answers = await asyncio.gather(*tasks)
    assert [len(answer) for answer in answers] == [1, 3, 2]
    assert all(row.tolist() == [3, 3] for (row,) in answers[1])
    assert [len(rows) for _, rows in held.calls] == [1, 5]


async def test_a_call_carries_no_more_than_its_rows_and_no_other_options():
    held = HeldStage()
    stage = gathering(held, rows=2, calls=1)
    first = requests(stage, ["a"])
    await turns()
    tasks = (
        first + requests(stage, ["b"], ["c"], ["d"], ["e", "f", "g"]) + requests(stage, ["h"], options=[1])
    )
    held.open.set()
    await asyncio.gather(*tasks)
    assert [rows for _, rows, *_ in held.calls] == [["a"], ["b", "c"], ["d"], ["e", "f", "g"], ["h"]]


async def test_a_full_call_leaves_while_others_are_on_their_way():
    held = HeldStage()
    stage = gathering(held, rows=2, calls=2)
    tasks = requests(stage, ["a"], ["b"], ["c"], ["d"], ["e"])
    await turns()
    assert [rows for _, rows in held.calls] == [["a"], ["b", "c"]]
    held.open.set()
    await asyncio.gather(*tasks)
    assert [rows for _, rows in held.calls][2:] == [["d", "e"]]


async def test_every_replica_has_a_call_and_what_waits_is_divided_among_them():
    held = HeldStage()
    held.width = 2
    stage = gathering(held)
    tasks = requests(stage, *([letter] for letter in "abcdef"))
    await turns()
    assert [rows for _, rows in held.calls] == [["a"], ["b"]]
    held.open.set()
    await asyncio.gather(*tasks)
    assert [rows for _, rows in held.calls][2:] == [["c", "d"], ["e"], ["f"]]


async def test_what_has_waited_long_enough_leaves_before_its_call_is_full():
    held = HeldStage()
    stage = gathering(held, patience_s=0.01)
    tasks = requests(stage, ["a"], ["b"], ["c"])
    async with asyncio.timeout(10):
        while len(held.calls) < 2:
            await asyncio.sleep(0)
    assert held.calls == [("encode", ["a"]), ("encode", ["b", "c"])]
    held.open.set()
    await asyncio.gather(*tasks)


async def test_a_full_queue_refuses_the_next_request_at_once():
    held = HeldStage()
    stage = gathering(held, queue=2)
    tasks = requests(stage, ["a"], ["b"], ["c"])
    await turns()
    with pytest.raises(OverloadedError):
        await stage.call("encode", ["d"])
    held.open.set()
    assert len(await asyncio.gather(*tasks)) == 3


async def test_a_failure_reaches_every_request_of_the_call_and_no_other():
    held = HeldStage()
    held.failure = OverloadedError()
    stage = gathering(held)
    held.open.set()
    failed = await asyncio.gather(*requests(stage, ["a"], ["b"], ["c"]), return_exceptions=True)
    assert [type(one) for one in failed] == [OverloadedError] * 3
    held.failure = None
    assert await stage.call("encode", ["d"]) == [("d",)]


async def test_a_caller_that_leaves_ends_only_a_call_that_was_its_alone():
    held = HeldStage()
    stage = gathering(held)
    alone, *waiting = requests(stage, ["a"], ["b"], ["c"], ["d"])
    await turns()
    alone.cancel()
    waiting[0].cancel()
    await turns()
    assert held.cancelled == 1
    assert held.calls[1] == ("encode", ["c", "d"])
    waiting[1].cancel()
    await turns()
    assert held.cancelled == 1
    held.open.set()
    assert await waiting[2] == [("d",)]


async def test_what_has_no_rows_is_never_joined_nor_refused():
    held = HeldStage()
    held.open.set()
    stage = gathering(held, queue=1)
    await asyncio.gather(stage.ask("describe"), stage.ask("describe"))
    assert held.calls == [("describe",), ("describe",)]
