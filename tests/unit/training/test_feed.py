"""Data that fits is read once; data that does not goes round in blocks, and never keeps a worker waiting."""

import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pytest

from cellular.training.buckets import Texts, join_texts, texts_of
from cellular.training.feed import Feed


def feed_of(epoch: Callable[[], Iterable[pa.Table]], budget: int) -> Feed[Texts]:
    return Feed(epoch, budget, texts_of, join_texts)


def table(number: int, rows: int = 10) -> pa.Table:
    values = pa.array(np.zeros(384 * rows, np.float16))
    return pa.table(
        {
            "pieces": pa.array([bytes([number])] * rows, pa.binary()),
            "embedding": pa.FixedSizeListArray.from_arrays(values, 384),
        }
    )


def test_data_that_fits_is_read_once() -> None:
    passes = []

    def epoch() -> Iterator[pa.Table]:
        passes.append(1)
        yield from (table(number) for number in range(5))

    feed = feed_of(epoch, budget=1 << 20)
    assert feed.first.pieces.unique().tolist() == [0, 1, 2, 3, 4]
    assert feed.next() is None and len(passes) == 1


def test_blocks_go_round_within_their_budget() -> None:
    feed = feed_of(lambda: (table(number) for number in range(3)), budget=2 * 7_000)
    seen = [int(feed.first.pieces[0])]
    while len(seen) < 7:
        if block := feed.next():
            assert block.bytes < 8_000
            seen.append(int(block.pieces[0]))
    assert seen == [0, 1, 2, 0, 1, 2, 0]


def test_a_block_that_is_late_is_not_waited_for() -> None:
    late = threading.Event()

    def epoch() -> Iterator[pa.Table]:
        yield from (table(0), table(1))
        late.wait(60)
        yield table(2)

    feed = feed_of(epoch, budget=2)
    while (block := feed.next()) is None:
        pass
    assert int(block.pieces[0]) == 1
    assert feed.next() is None
    late.set()
    while (block := feed.next()) is None:
        pass
    assert int(block.pieces[0]) == 2


def test_an_empty_share_is_an_error() -> None:
    with pytest.raises(ValueError, match="no training data"):
        feed_of(tuple, budget=100)
