"""The last step of a build: shards become one bank, which appears whole or not at all."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.indexer import every_core
from actors.segmenter import REJECT_SCHEMA
from cellular.bank.calibration import calibrate
from cellular.bank.index import build_index, merge_indexes, read_index
from cellular.bank.manifest import (
    EMBEDDINGS,
    INDEX,
    PHRASES,
    SOURCES,
    IndexEntry,
    Manifest,
    publish,
    seal,
    set_current,
    versions,
)
from cellular.bank.search import map_embeddings
from cellular.bank.writer import PHRASE_SCHEMA, write_embeddings, write_phrases, write_sources
from cellular.config import IndexConfig


@dataclass(frozen=True)
class Parts:
    """The files that a bank is made of; shards in the order of their ids."""

    phrases: Sequence[Path]
    embeddings: Sequence[Path]
    trained_index: Path | None  # None: the index is not made of parts
    index: Sequence[Path]
    rejects: Sequence[Path]
    sources: Sequence[str]


def publish_bank(
    target: Path, parts: Parts, manifest: Manifest, index: IndexConfig, factory: str, known: Sequence[str]
) -> str:
    """Write, seal and publish a version, unless an earlier attempt did.

    Args:
        target: folder of the bank.
        parts: what it is made of.
        manifest: all but the counts, the index and the files.
        index: how the bank will be searched.
        factory: its FAISS factory string.
        known: the versions before this build.

    Returns:
        The version.
    """
    version = next((name for name in versions(target) if name not in known), None)
    if version:
        set_current(target, version)
    else:
        version = _publish(target, parts, manifest, index, factory)
    _publish_rejects(target / "rejects" / version, parts)
    return version


def _publish(target: Path, parts: Parts, manifest: Manifest, index: IndexConfig, factory: str) -> str:
    staged = Path(tempfile.mkdtemp(dir=parts.phrases[0].parent))
    staged.chmod(0o755)
    try:
        occurrences = Counter[str]()
        rows = write_phrases(staged / PHRASES, _phrase_batches(parts.phrases, occurrences))
        shards = map(map_embeddings, parts.embeddings)
        write_embeddings(staged / EMBEDDINGS, shards, manifest.dimension, manifest.embedding_dtype)
        write_sources(staged / SOURCES, parts.sources)
        counts = {"phrases": rows, "occurrences": occurrences.total()}
        with every_core():
            entry = _index(staged, parts, index, factory)
        seal(staged, manifest.model_copy(update={**counts, "index": entry}))
        return publish(target, staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _phrase_batches(paths: Sequence[Path], occurrences: Counter[str]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pa.memory_map(str(path)) as file:
            for batch in pa.ipc.open_file(file).read_all().select(PHRASE_SCHEMA.names).to_batches():
                occurrences["all"] += pc.sum(batch["count"]).as_py()
                yield batch.cast(PHRASE_SCHEMA)


def _index(staged: Path, parts: Parts, config: IndexConfig, factory: str) -> IndexEntry:
    if not parts.trained_index:
        return build_index(staged, config)
    merge_indexes(parts.trained_index, parts.index, staged / INDEX)
    matrix = map_embeddings(staged / EMBEDDINGS)
    return calibrate(read_index(staged / INDEX), matrix, factory, config.recall_target)


def _publish_rejects(folder: Path, parts: Parts) -> None:
    """One file of all rejects, which names their sources; none where there were none."""
    tables = [pq.ParquetFile(path) for path in parts.rejects]
    if folder.exists() or not any(table.metadata.num_rows for table in tables):
        return
    folder.parent.mkdir(exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    staged.chmod(0o755)
    schema = REJECT_SCHEMA.set(0, pa.field("source", pa.string()))
    with pq.ParquetWriter(staged / "rejects.parquet", schema, compression="zstd") as writer:
        for batch in (batch for table in tables for batch in table.iter_batches()):
            names = pa.array(parts.sources).take(batch["source"])
            writer.write_batch(batch.set_column(0, schema.field(0), names))
    staged.rename(folder)
