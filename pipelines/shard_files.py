"""Shards of prepared data as a dataset. Imports next to nothing: each process that reads imports it first.

With what prepares the data beside it, a reader took eight seconds of a processor to start, of which there are
as many as the cluster has room for.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from pipelines.cluster import room

READERS = 8  # at once, at most: each is a process to start, and a shard is read in less time than that


def read_shards(paths: Sequence[Path], columns: Sequence[str]) -> ray.data.Dataset:
    """What a training reads: a dataset of some columns of Parquet files, a file a block.

    Reading takes no CPU as Ray counts: workers may have taken all, and would wait for the data, and the data
    for them. `ray.data.read_parquet` takes whole ones, to list files besides.
    """
    rows = [{"path": str(path)} for path in paths]
    shards = ray.data.from_items(rows, override_num_blocks=len(rows))
    read = partial(_read_shard, columns=list(columns))
    readers = min(READERS, room(1.0, 0.0))
    return shards.map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=0, concurrency=readers)


def _read_shard(row: pa.Table, columns: list[str]) -> pa.Table:
    return pq.read_table(row["path"][0].as_py(), columns=columns)
