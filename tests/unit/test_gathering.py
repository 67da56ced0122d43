"""Requests that wait for a stage together share its calls, and nothing else."""

import asyncio

import numpy as np
import pytest

from serve.gateway import OverloadedError
from serve.gathering import GatheringStage

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

    async def call(self, method, *arguments):
        self.calls.append((method, *arguments))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        rows, *options = arguments or ([],)
        return [(row, *options) for row in rows]


async def turns(number=10):
    """Let everything that can run do so."""
    for _ in range(number):
        await asyncio.sleep(0)


def requests(stage, *rows, options=()):
    return [asyncio.create_task(stage.call("encode", one, *options)) for one in rows]


async def test_a_lone_request_leaves_at_once_and_what_comes_meanwhile_shares_the_next_call():
    held = HeldStage()
    stage = GatheringStage(held, calls=1, rows=8, queue=8)
    tasks = requests(stage, ["a"], ["b", "c"], ["d"])
    await turns()
    assert held.calls == [("encode", ["a"])]
    held.open.set()
    assert await asyncio.gather(*tasks) == [[("a",)], [("b",), ("c",)], [("d",)]]
    assert held.calls[1:] == [("encode", ["b", "c", "d"])]


async def test_arrays_are_joined_and_divided_by_rows():
    held = HeldStage()
    held.open.set()
    stage = GatheringStage(held, calls=1, rows=100, queue=8)
    parts = [np.full((count, 2), count, np.float32) for count in (1, 3, 2)]
    answers = await asyncio.gather(*requests(stage, *parts))
    assert [len(answer) for answer in answers] == [1, 3, 2]
    assert all(row.tolist() == [3, 3] for (row,) in answers[1])
    assert [len(rows) for _, rows in held.calls] == [1, 5]


async def test_a_call_carries_no_more_than_its_rows_and_no_other_options():
    held = HeldStage()
    stage = GatheringStage(held, calls=1, rows=2, queue=9)
    first = requests(stage, ["a"])
    await turns()
    tasks = (
        first + requests(stage, ["b"], ["c"], ["d"], ["e", "f", "g"]) + requests(stage, ["h"], options=[1])
    )
    held.open.set()
    await asyncio.gather(*tasks)
    assert [rows for _, rows, *_ in held.calls] == [["a"], ["b", "c"], ["d"], ["e", "f", "g"], ["h"]]


async def test_several_calls_are_on_their_way_at_once():
    held = HeldStage()
    tasks = requests(GatheringStage(held, calls=2, rows=8, queue=8), ["a"], ["b"], ["c"], ["d"])
    await turns()
    assert [rows for _, rows in held.calls] == [["a"], ["b"]]
    held.open.set()
    await asyncio.gather(*tasks)
    assert [rows for _, rows in held.calls] == [["a"], ["b"], ["c", "d"]]


async def test_a_full_queue_refuses_the_next_request_at_once():
    held = HeldStage()
    stage = GatheringStage(held, calls=1, rows=8, queue=2)
    tasks = requests(stage, ["a"], ["b"], ["c"])
    await turns()
    with pytest.raises(OverloadedError):
        await stage.call("encode", ["d"])
    held.open.set()
    assert len(await asyncio.gather(*tasks)) == 3


async def test_a_failure_reaches_every_request_of_the_call_and_no_other():
    held = HeldStage()
    held.failure = OverloadedError()
    stage = GatheringStage(held, calls=1, rows=8, queue=8)
    held.open.set()
    failed = await asyncio.gather(*requests(stage, ["a"], ["b"], ["c"]), return_exceptions=True)
    assert [type(one) for one in failed] == [OverloadedError] * 3
    held.failure = None
    assert await stage.call("encode", ["d"]) == [("d",)]


async def test_a_caller_that_leaves_ends_only_a_call_that_was_its_alone():
    held = HeldStage()
    stage = GatheringStage(held, calls=1, rows=8, queue=8)
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
    stage = GatheringStage(held, calls=1, rows=8, queue=1)
    await asyncio.gather(stage.call("describe"), stage.call("describe"))
    assert held.calls == [("describe",), ("describe",)]
