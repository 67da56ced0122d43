"""Files of training data: texts, their pieces, and their embeddings by a teacher."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellular.files import atomic_path
from cellular.types import FloatArray


def write_shard(
    path: Path, texts: Sequence[str], pieces: Sequence[NDArray[np.uint8]], embeddings: FloatArray
) -> None:
    """Write one Parquet file with the columns text, pieces (a byte each, no END) and embedding.

    Args:
        path: the file; it is there complete or not at all.
        texts: N texts.
        pieces: their ids.
        embeddings: (N, D) float32, kept as FixedSizeList<float16>[D].
    """
    values = pa.array(embeddings.astype(np.float16).ravel())
    columns = {
        "text": pa.array(texts, pa.string()),
        "pieces": pa.array([ids.tobytes() for ids in pieces], pa.binary()),
        "embedding": pa.FixedSizeListArray.from_arrays(values, embeddings.shape[1]),
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd", use_dictionary=False)
