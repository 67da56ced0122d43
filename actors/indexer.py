"""The index of a build: trained once on a sample, filled in parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_limits

from cellular.bank.index import add_rows, read_index, train_index, write_index
from cellular.bank.search import map_embeddings
from cellular.files import atomic_path


def every_core() -> threadpool_limits:
    """Let FAISS use the whole machine: no other step of a build runs beside one that cannot be divided.

    Ray would hold it to the CPUs that it reserves, one.
    """
    return threadpool_limits(cpu_count())


def train(shards: Sequence[Path], rows: int, sample: int, factory: str, output: Path) -> None:
    """Train an empty index on a uniform sample of the shards' embeddings.

    A shard is sorted by hash, so that its first rows are a uniform sample of it.

    Args:
        shards: files of embeddings.
        rows: vectors in all of them.
        sample: vectors to train on.
        factory: FAISS factory string.
        output: file of the trained index.
    """
    parts = [matrix[: -(-len(matrix) * sample // rows)] for matrix in map(map_embeddings, shards)]
    with every_core():
        index = train_index(factory, np.concatenate(parts).astype(np.float32))
    with atomic_path(output) as temporary:
        write_index(index, temporary)


class Indexer:
    """Adds shards of embeddings to copies of a trained index."""

    def __init__(self, trained: Path) -> None:
        self._trained = trained

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write an index of the files `embeddings`, whose first rows have the ids `first_ids`."""
        index = read_index(self._trained)
        for path, first_id in zip(item["embeddings"], item["first_ids"], strict=True):
            add_rows(index, map_embeddings(Path(path)), int(first_id))
        with atomic_path(Path(item["output"])) as temporary:
            write_index(index, temporary)
        return {"phrases": index.ntotal}
