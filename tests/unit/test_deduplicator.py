from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from actors.deduplicator import MAX_COUNT, SHARD_SCHEMA, merge_duplicates
from actors.segmenter import SEGMENT_SCHEMA

rows = st.tuples(st.sampled_from("abcde"), st.integers(1, 5), st.integers(0, 3), st.integers(0, 9))


def segments(found: list[tuple[str, int, int, int]], hashes: list[int] | None = None) -> pa.Table:
    """Rows of (phrase, count, source, row); the position is the row's place in the list."""
    phrases, counts, sources, numbers = zip(*found, strict=True) if found else ((), (), (), ())
    columns = {
        "hash": hashes or [ord(phrase) for phrase in phrases],
        "phrase": phrases,
        "count": counts,
        "source": sources,
        "row": numbers,
        "position": range(len(found)),
        "base_id": [None] * len(found),
    }
    return pa.table({name: pa.array(list(values)) for name, values in columns.items()}).cast(SEGMENT_SCHEMA)


@given(st.lists(rows), st.integers(1, 6))
def test_counts_are_summed_and_the_first_occurrence_is_kept(
    found: list[tuple[str, int, int, int]], min_count: int
) -> None:
    counts = Counter[str]()
    for phrase, count, *_ in found:
        counts[phrase] += count
    first = {
        phrase: min((source, row, at) for at, (p, _, source, row) in enumerate(found) if p == phrase)
        for phrase in counts
    }
    expected = [
        (phrase, counts[phrase], *first[phrase]) for phrase in sorted(counts) if counts[phrase] >= min_count
    ]
    merged = merge_duplicates(segments(found), min_count)
    assert merged.schema == SHARD_SCHEMA
    assert [tuple(row.values())[:5] for row in merged.to_pylist()] == expected


def test_phrases_whose_hashes_collide_stay_apart() -> None:
    merged = merge_duplicates(segments([("b", 1, 0, 0), ("a", 2, 0, 1), ("b", 3, 0, 2)], hashes=[7, 7, 7]), 1)
    assert merged.select(["phrase", "count"]).to_pylist() == [
        {"phrase": "a", "count": 2},
        {"phrase": "b", "count": 4},
    ]


def test_a_count_beyond_32_bits_is_the_largest_there_is() -> None:
    merged = merge_duplicates(segments([("a", int(MAX_COUNT), 0, 0), ("a", 2, 0, 1)]), 1)
    np.testing.assert_array_equal(merged["count"], [MAX_COUNT])
