"""Batches are of one width, hold each text once a pass, and don't depend on interruptions."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cellular.training.buckets import WIDTHS, Buckets, choose_width, join_texts, texts_of
from cellular.training.shards import write_shard

from .conftest import of_lengths

NARROW, SECOND, THIRD, *_, WIDE = WIDTHS
SHORT = [NARROW - 6]  # a length without its END


def draw(buckets: Buckets, width: int, times: int) -> list[int]:
    return [row for _ in range(times) for row in buckets.draw(width).rows_B.tolist()]


def test_a_text_is_drawn_once_before_any_is_drawn_again() -> None:
    buckets = Buckets(of_lengths(SHORT * 12 + [WIDE] * 3), tokens=4 * NARROW, seed=0)
    first, second = draw(buckets, NARROW, 3), draw(buckets, NARROW, 3)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_a_text_is_in_the_narrowest_bucket_that_holds_it_and_its_end() -> None:
    buckets = Buckets(of_lengths([NARROW - 1, NARROW, WIDE - 1, 200]), tokens=1000, seed=0)
    filled = [width for width, count in zip(WIDTHS, buckets.counts, strict=True) if count]
    found = {width: set(draw(buckets, width, 1)) for width in filled}
    assert found == {NARROW: {0}, SECOND: {1}, WIDE: {2, 3}}


def test_the_order_goes_on_from_a_position() -> None:
    texts = of_lengths(SHORT * 40)
    whole, begun = Buckets(texts, 64, seed=3), Buckets(texts, 64, seed=3)
    expected = draw(whole, NARROW, 17)
    resumed = Buckets(texts, 64, seed=3)
    start = draw(begun, NARROW, 12)
    resumed.seek(begun.position)
    assert start + draw(resumed, NARROW, 5) == expected


def test_workers_and_seeds_have_orders_of_their_own() -> None:
    texts = of_lengths(SHORT * 40)
    orders = [draw(Buckets(texts, 640, *key), NARROW, 1) for key in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3


def test_an_empty_bucket_gives_a_row_that_is_not_real() -> None:
    rows = Buckets(of_lengths(SHORT), 64, seed=0).draw(WIDE)
    assert rows.real_B.tolist() == [False]


def test_every_gives_each_text_once_in_batches_of_one_shape() -> None:
    buckets = Buckets(of_lengths(SHORT * 7 + [SECOND - 1] * 2), tokens=4 * NARROW, seed=0)
    batches = list(buckets.every())
    real = [row for rows in batches for row in rows.rows_B[rows.real_B].tolist()]
    assert sorted(real) == list(range(9))
    assert {(rows.width, len(rows.rows_B)) for rows in batches} == {
        (NARROW, 4),
        (SECOND, 2),
    }


def test_widths_are_drawn_by_their_weight_and_by_nothing_else() -> None:
    weights = [1.0, 0.0, 3.0] + [0.0] * (len(WIDTHS) - 3)
    chosen = [choose_width(weights, seed=0, number=number) for number in range(400)]
    assert chosen == [choose_width(weights, seed=0, number=number) for number in range(400)]
    assert set(chosen) == {NARROW, THIRD}
    assert Counter(chosen)[THIRD] == pytest.approx(300, abs=40)


def test_a_block_is_finished_after_as_many_texts_as_it_has() -> None:
    buckets = Buckets(of_lengths(SHORT * 8), tokens=4 * NARROW, seed=0)
    drawn = 0
    while not buckets.finished:
        drawn += len(buckets.draw(NARROW).rows_B)
    assert drawn == 8


def test_a_shard_gives_back_its_texts(tmp_path: Path) -> None:
    pieces = [np.array(ids, np.uint8) for ids in ([7, 8, 9], [], [255])]
    vectors = np.eye(3, 384, dtype=np.float32)
    write_shard(tmp_path / "shard.parquet", ["a", "", "ü"], pieces, vectors)
    table = pq.read_table(tmp_path / "shard.parquet")
    assert table["text"].to_pylist() == ["a", "", "ü"]
    texts = texts_of(table.slice(1))
    assert texts.lengths.tolist() == [0, 1] and texts.pieces.tolist() == [255]
    joined = join_texts([texts_of(table), texts])
    assert joined.starts.tolist() == [0, 3, 3, 4, 4, 5]
    assert joined.pieces.tolist() == [7, 8, 9, 255, 255]
    assert torch.equal(joined.embeddings_NE.float(), torch.from_numpy(vectors)[[0, 1, 2, 1, 2]])
