"""Writes the files of one version of a phrase bank, in memory that does not grow with it."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellular.bank.index import build_index
from cellular.bank.manifest import EMBEDDINGS, PHRASES, SOURCES, Manifest, TeacherEntry, publish, seal
from cellular.config import IndexConfig
from cellular.errors import CellularError
from cellular.teachers import Teacher

PHRASE_SCHEMA = pa.schema(
    [
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("count", pa.uint32(), nullable=False),
        pa.field("source", pa.int32(), nullable=False),  # row in sources.parquet
        pa.field("row", pa.int64(), nullable=False),  # record in the source
        pa.field("position", pa.int32(), nullable=False),  # phrase number in the record
    ]
)
SOURCE_SCHEMA = pa.schema([pa.field("uri", pa.string(), nullable=False)])
EmbeddingDtype = Literal["float16", "float32"]


def write_phrases(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write phrases.arrow, one record batch a shard; the ids are the row numbers through all of them.

    Returns:
        The number of phrases.
    """
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, PHRASE_SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_embeddings(
    path: Path, shards: Iterable[NDArray[Any]], dimension: int, dtype: EmbeddingDtype = "float16"
) -> int:
    """Write embeddings.arrow: one record batch, so that it maps as one contiguous (N, D) array.

    Args:
        path: the file to write; a temporary file of the same size lies beside it meanwhile.
        shards: (n, D) arrays in the order of the ids, best memory-mapped; read one at a time.
        dimension: D.
        dtype: how they are stored.

    Returns:
        The number of embeddings.
    """
    rows = 0
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".raw") as raw:
        for shard in shards:
            if shard.ndim != 2 or shard.shape[1] != dimension:
                raise ValueError(f"shard must have shape (n, {dimension}), not {shard.shape}")
            for start in range(0, len(shard), 16384):
                raw.write(np.ascontiguousarray(shard[start : start + 16384], dtype).data)
            rows += len(shard)
        raw.flush()
        with pa.memory_map(raw.name) as source:
            values = pa.Array.from_buffers(
                pa.from_numpy_dtype(np.dtype(dtype)), rows * dimension, [None, source.read_buffer()]
            )
            column = pa.FixedSizeListArray.from_arrays(values, dimension)
            batch = pa.record_batch([column], names=["embedding"])
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
    return rows


def write_sources(path: Path, uris: Sequence[str]) -> None:
    """Write sources.parquet: row i holds the URI of the source number i."""
    pq.write_table(pa.table({"uri": list(uris)}, schema=SOURCE_SCHEMA), path, compression="zstd")


def create_bank(
    target: Path,
    phrases: Sequence[str],
    teacher: Teacher,
    *,
    counts: Sequence[int] | None = None,
    index: IndexConfig | None = None,
    embedding_dtype: EmbeddingDtype = "float16",
) -> str:
    """Build and publish a bank in this process, from phrases that fit its memory.

    Args:
        target: folder of the bank.
        phrases: N different texts; the id of each is its place.
        teacher: embeds them.
        counts: N occurrences; None: one each.
        index: how the bank will be searched; None: by its size.
        embedding_dtype: how the embeddings are stored.

    Returns:
        The published version.
    """
    if not phrases or len(set(phrases)) != len(phrases):
        raise CellularError("a phrase bank needs at least one phrase, and each only once")
    counts = [1] * len(phrases) if counts is None else counts
    target.mkdir(parents=True, exist_ok=True)
    staged = target / f".staged-{os.getpid()}-{threading.get_ident()}"
    staged.mkdir()
    try:
        write_phrases(staged / PHRASES, [_phrase_batch(phrases, counts)])
        write_embeddings(staged / EMBEDDINGS, [teacher.encode(phrases)], teacher.dimension, embedding_dtype)
        write_sources(staged / SOURCES, ["memory:"])
        manifest = Manifest(
            teacher=TeacherEntry(name=teacher.name, fingerprint=teacher.fingerprint),
            dimension=teacher.dimension,
            phrases=len(phrases),
            occurrences=sum(counts),
            embedding_dtype=embedding_dtype,
            index=build_index(staged, index or IndexConfig()),
        )
        seal(staged, manifest)
        return publish(target, staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _phrase_batch(phrases: Sequence[str], counts: Sequence[int]) -> pa.RecordBatch:
    rows = np.arange(len(phrases))
    columns = [phrases, counts, np.zeros(len(phrases), np.int32), rows, np.zeros(len(phrases), np.int32)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, PHRASE_SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=PHRASE_SCHEMA)
