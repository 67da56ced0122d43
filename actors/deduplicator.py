"""The second stage of a build: one range of the hash space in, that range's distinct phrases out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from actors.segmenter import SEGMENT_SCHEMA
from cellular.files import atomic_path

HASHES = 1 << 64
MAX_COUNT = np.iinfo(np.uint32).max
SHARD_SCHEMA = SEGMENT_SCHEMA.remove(SEGMENT_SCHEMA.get_field_index("hash"))


def merge_duplicates(segments: pa.Table, min_count: int) -> pa.Table:
    """Each phrase of `segments` once, with its summed count and its first occurrence.

    Args:
        segments: rows of `SEGMENT_SCHEMA`, in any order.
        min_count: occurrences below which a phrase is left out.

    Returns:
        Rows of `SHARD_SCHEMA`, sorted by hash and then by phrase.
    """
    if not segments.num_rows:
        return SHARD_SCHEMA.empty_table()
    keys = ("hash", "phrase", "source", "row", "position")
    rows = segments.sort_by([(key, "ascending") for key in keys]).combine_chunks()
    phrase = rows["phrase"].combine_chunks()
    is_first = np.ones(len(phrase), bool)
    is_first[1:] = pc.not_equal(phrase[1:], phrase[:-1]).to_numpy(zero_copy_only=False)
    first = np.flatnonzero(is_first)
    counts = np.add.reduceat(rows["count"].to_numpy().astype(np.uint64), first)
    kept = counts >= min_count
    merged = rows.take(first[kept]).select(SHARD_SCHEMA.names)
    capped = pa.array(np.minimum(counts[kept], MAX_COUNT).astype(np.uint32))
    return merged.set_column(merged.schema.get_field_index("count"), SHARD_SCHEMA.field("count"), capped)


class Deduplicator:
    """Joins the chunks of all pieces, one range of hashes at a time.

    The hash only divides the work: phrases are compared as text, so that a collision merges nothing.
    """

    def __init__(self, chunks: Sequence[str], min_count: int) -> None:
        self._chunks = list(chunks)
        self._min_count = min_count

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write range `number` of `ranges` equal ones to `output`, an Arrow file of one record batch."""
        phrases = merge_duplicates(self._read(int(item["number"]), int(item["ranges"])), self._min_count)
        with (
            atomic_path(Path(item["output"])) as temporary,
            pa.ipc.new_file(temporary, SHARD_SCHEMA) as writer,
        ):
            writer.write_table(phrases)
        return {"phrases": phrases.num_rows}

    def _read(self, number: int, ranges: int) -> pa.Table:
        """The rows of a range, by the statistics of the row groups."""
        segments = pyarrow.dataset.dataset(self._chunks, schema=SEGMENT_SCHEMA, format="parquet")
        return segments.to_table(filter=hash_range(number, ranges), use_threads=False)


def hash_range(number: int, ranges: int) -> pc.Expression:
    """Rows whose hash is in range `number` of `ranges` equal ones."""
    first, last = number * HASHES // ranges, (number + 1) * HASHES // ranges - 1
    low, high = pa.scalar(first, pa.uint64()), pa.scalar(last, pa.uint64())
    return (pc.field("hash") >= low) & (pc.field("hash") <= high)
