"""Texts that belong together, as workers on training data: find the groups of a file, then embed them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json
import pyarrow.parquet as pq

from actors.deduplicator import hash_range
from actors.embedder import SLICE_ROWS, Embedder
from actors.segmenter import ROW_GROUP, hash_phrases
from cellular.config import CorpusConfig, TeacherConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.files import atomic_path, open_stream
from cellular.phrases import normalise
from cellular.training.groups import write_groups
from cellular.training.lattice_config import PairsConfig
from cellular.types import FloatArray

SCHEMA = pa.schema(
    {"hash": pa.uint64(), "group": pa.string(), "place": pa.float64(), "row": pa.int64(), "text": pa.string()}
)
_SORTED = [(name, "ascending") for name in ("hash", "group", "place", "row")]


class Grouper:
    """Turns a file into its texts, sorted by a hash of their group. A file fits into memory.

    Args:
        corpus: which column holds the text.
        pairs: which texts belong together.
    """

    def __init__(self, corpus: CorpusConfig, pairs: PairsConfig) -> None:
        self._text, self._pairs = corpus.text_column, pairs

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write the texts of file `uri`, of a `format`, to `output`."""
        rows = self._rows(read_columns(item["uri"], item["format"], self.columns), item["uri"])
        named, said = (pc.fill_null(pc.utf8_length(rows[name]), 0) for name in ("group", "text"))
        rows = rows.filter(pc.and_(pc.greater(named, 0), pc.greater(said, 0)))
        hashes = pa.array(hash_phrases(rows["group"].to_pylist()))
        table = rows.add_column(0, "hash", hashes).select(SCHEMA.names).cast(SCHEMA).sort_by(_SORTED)
        with atomic_path(Path(item["output"])) as temporary:
            pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="zstd")
        return {"phrases": table.num_rows}

    @property
    def columns(self) -> list[str]:
        """What is read."""
        pairs = self._pairs
        if pairs.source and pairs.target:
            return [pairs.source, pairs.target]
        return [name for name in (pairs.group, pairs.order, self._text) if name]

    def _rows(self, table: pa.Table, uri: str) -> pa.Table:
        """Columns group, place, row and text; of explicit pairs two rows each."""
        pairs, numbers = self._pairs, np.arange(table.num_rows)
        if pairs.source and pairs.target:
            groups = pa.array([f"{uri}:{number}" for number in numbers], pa.string())
            whole = pc.and_(pc.is_valid(table[pairs.source]), pc.is_valid(table[pairs.target]))
            sides = [
                _rows_of(groups, np.full(len(numbers), place), numbers, table[name]).filter(whole)
                for place, name in enumerate((pairs.source, pairs.target))
            ]
            return pa.concat_tables(sides)
        places = table[pairs.order] if pairs.order else numbers
        return _rows_of(table[pairs.group].cast(pa.string()), places, numbers, table[self._text])


def _rows_of(groups: Any, places: Any, numbers: Any, texts: pa.ChunkedArray) -> pa.Table:
    clean = [normalise(text) if text else "" for text in texts.to_pylist()]
    columns = {"group": groups, "place": places, "row": numbers, "text": pa.array(clean, pa.string())}
    try:
        return pa.table(columns).cast(pa.schema([SCHEMA.field(name) for name in columns]))
    except pa.ArrowException as error:
        raise CellularError(f"the column of the order must hold numbers: {error}") from error


def read_columns(uri: str, format: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of a file of a table."""
    with open_stream(uri) as stream:
        if format == "parquet":
            return pq.read_table(pa.BufferReader(stream.read()), columns=list(columns))
        read = pyarrow.json.read_json if format == "jsonl" else pyarrow.csv.read_csv
        return read(stream).select(list(columns))


class GroupEmbedder(Embedder):
    """Turns a range of groups into a shard of training data.

    Args:
        teacher: which model.
        vocabulary: file of the pieces; None: the packaged ones.
        held_out: share of each shard's groups that is kept for the held-out loss; they are in the order of
            a hash, so that the last are as good as any.
        chunks: what `Grouper` wrote.
    """

    def __init__(
        self, teacher: TeacherConfig, vocabulary: Path | None, held_out: float, chunks: Sequence[str]
    ) -> None:
        super().__init__(teacher)
        self._vocabulary = Vocabulary.from_file(vocabulary) if vocabulary else Vocabulary.load()
        self._held_out, self._chunks = held_out, list(chunks)

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write range `number` of `ranges` equal ones to `held_out` and to `output`, in this order."""
        rows = self._read(int(item["number"]), int(item["ranges"]))
        sizes = _sizes(rows["group"])
        kept = round((1 - self._held_out) * len(sizes))
        first = int(sizes[:kept].sum())
        texts: list[str] = rows["text"].to_pylist()
        self._write(Path(item["held_out"]), texts[first:], sizes[kept:])
        self._write(Path(item["output"]), texts[:first], sizes[:kept])
        return {"phrases": len(texts)}

    def _read(self, number: int, ranges: int) -> pa.Table:
        """The texts of a range, group by group, by the statistics of the row groups."""
        chunks = pyarrow.dataset.dataset(self._chunks, schema=SCHEMA, format="parquet")
        rows = chunks.to_table(filter=hash_range(number, ranges), use_threads=False)
        return rows.sort_by(_SORTED).combine_chunks()

    def _write(self, path: Path, texts: list[str], sizes: np.ndarray) -> None:
        """Embed each text once, however often it occurs, and write all."""
        unique, inverse = np.unique(np.array(texts, dtype=object), return_inverse=True)
        slices = (unique[start : start + SLICE_ROWS].tolist() for start in range(0, len(unique), SLICE_ROWS))
        vectors = [self.encode(some) for some in slices]
        embeddings: FloatArray = np.concatenate([np.empty((0, self.teacher.dimension), np.float32), *vectors])
        keys = hash_phrases(unique).astype(np.int64)
        pieces = self._vocabulary.encode_batch(unique.tolist())
        write_groups(
            path, texts, [pieces[number] for number in inverse], embeddings[inverse], keys[inverse], sizes
        )


def _sizes(groups: pa.ChunkedArray) -> np.ndarray:
    """(G,) int64: rows of each run of equal values."""
    runs = pc.run_end_encode(groups.combine_chunks()) if len(groups) else None
    return np.diff(runs.run_ends.to_numpy(), prepend=0).astype(np.int64) if runs else np.zeros(0, np.int64)
