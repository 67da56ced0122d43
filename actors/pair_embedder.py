"""A second teacher as a worker on training data: texts with one embedding get another, and become pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.embedder import SLICE_ROWS, Embedder
from cellular.adapter import PairSums
from cellular.files import atomic_path
from cellular.training.adapter import COLUMNS, EmbeddingPairs
from cellular.types import FloatArray


class PairEmbedder(Embedder):
    """Turns shards of training data into shards of pairs."""

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Embed the column `text` of file `texts`; write that and its column `embedding` to `output`."""
        table = pq.read_table(item["texts"], columns=["text", "embedding"])
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(self._vectors(table["text"].to_pylist()).ravel()), self.teacher.dimension
        )
        pairs = pa.table(dict(zip(COLUMNS, (column, table["embedding"]), strict=True)))
        with atomic_path(Path(item["output"])) as temporary:
            pq.write_table(pairs, temporary, compression="zstd", use_dictionary=False)
        return {"phrases": table.num_rows}

    def _vectors(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float16]]:
        vectors = np.empty((len(texts), self.teacher.dimension), np.float16)
        for start in range(0, len(texts), SLICE_ROWS):
            vectors[start : start + SLICE_ROWS] = self.encode(texts[start : start + SLICE_ROWS])
        return vectors


def sum_pairs(item: dict[str, Any]) -> dict[str, int]:
    """Write the sums of the pairs in the files `pairs` to `output`, for a map in closed form."""
    sums = PairSums.total(_sums(path) for path in item["pairs"])
    sums.save(Path(item["output"]))
    return {"phrases": sums.count}


def _sums(path: str) -> PairSums:
    pairs = EmbeddingPairs.of(pq.read_table(path))
    source, target = (_wide(rows.numpy()) for rows in (pairs.source_NS, pairs.target_NT))
    return PairSums.of(source, target)


def _wide(rows: Any) -> FloatArray:
    wide: FloatArray = rows.astype(np.float32)
    return wide
