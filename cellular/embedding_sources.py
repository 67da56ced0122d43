"""Files of embeddings, read in parts: .npy, Arrow IPC (.arrow), Parquet, JSON lines.

Shapes: N rows, D numbers of an embedding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellular.errors import CellularError
from cellular.types import FloatArray

EMBEDDING = "embedding"
BATCH_ROWS = 8_192  # of Parquet in memory beside those that are asked for


class Source(Protocol):
    """A file of embeddings, opened.

    Attributes:
        columns: their names; one is EMBEDDING.
        dimension: D, where the format says that all embeddings are of one length.
        rows: N.
    """

    columns: list[str]
    dimension: int | None
    rows: int

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of the rows from `start` on and before `stop`, in memory that does not grow with N."""


class NumpySource:
    """A matrix (N, D) of a floating dtype, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._matrix.ndim != 2 or self._matrix.dtype.kind != "f":
            raise ValueError(
                f"it holds {self._matrix.dtype} of shape {self._matrix.shape}, not (N, D) floats"
            )
        self.columns, (self.rows, self.dimension) = [EMBEDDING], self._matrix.shape

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """The embeddings of some rows."""
        numbers = pa.array(np.ascontiguousarray(self._matrix[start:stop]).ravel())
        return pa.table({EMBEDDING: pa.FixedSizeListArray.from_arrays(numbers, self.dimension)}).select(
            columns
        )


class ArrowSource:
    """Record batches, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.columns, self.rows = self._table.column_names, self._table.num_rows
        self.dimension = _list_size(self._table.schema)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of some rows."""
        return self._table.select(list(columns)).slice(start, stop - start)


class ParquetSource:
    """Row groups, of which those are read that hold the rows, batch by batch: one may hold a million rows."""

    def __init__(self, path: Path) -> None:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._path, self._ends = path, list(accumulate(sizes))
        self.columns, self.dimension, self.rows = schema.names, _list_size(schema), metadata.num_rows

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of some rows."""
        starts = [0, *self._ends[:-1]]
        groups = [n for n, end in enumerate(self._ends) if end > start and starts[n] < stop]
        first = starts[groups[0]] if groups else 0
        with pq.ParquetFile(self._path) as file:
            schema = pa.schema([file.schema_arrow.field(name) for name in columns])
            batches = file.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(columns))
            return pa.Table.from_batches(_between(batches, start - first, stop - first), schema)


class LinesSource:
    """JSON objects, a line each; a line that is none has no embedding."""

    dimension: int | None = None

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            first = next(map(_object, filter(bytes.strip, file)), {EMBEDDING: None})
            file.seek(0)
            self.rows = sum(1 for _ in filter(bytes.strip, file))
        if not first:
            raise ValueError("its first line is no JSON object")
        self._path, self.columns = path, list(first)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of some rows."""
        with self._path.open("rb") as file:
            objects = [_object(line) for line in islice(filter(bytes.strip, file), start, stop)]
        values = {name: [row.get(name) for row in objects] for name in columns}
        embeddings = pa.array(map(_numbers, values.pop(EMBEDDING)), pa.list_(pa.float64()))
        return pa.table({EMBEDDING: embeddings, **values}).select(columns)


SOURCES: dict[str, Callable[[Path], Source]] = {
    ".npy": NumpySource,
    ".arrow": ArrowSource,
    ".parquet": ParquetSource,
    ".jsonl": LinesSource,
}


def find_embeddings(inputs: Sequence[str]) -> list[Path]:
    """The files that paths, folders and globs name: sorted, each once; in folders no hidden ones.

    Raises:
        CellularError: one names nothing.
    """
    found: set[Path] = set()
    for pattern in inputs:
        path = Path(pattern).expanduser().absolute()
        root = Path(path.anchor)
        files = _in_folder(path) if path.is_dir() else list(root.glob(str(path.relative_to(root))))
        if not files:
            raise CellularError(
                f"no embeddings at {pattern}: give {', '.join(SOURCES)} files, folders or globs"
            )
        found.update(file for file in files if file.is_file())
    return sorted(found)


def open_source(path: Path, columns: Sequence[str] = (EMBEDDING,)) -> Source:
    """A file of embeddings that has these columns.

    Raises:
        CellularError: another format, a file that cannot be read, or no such column.
    """
    if path.suffix not in SOURCES:
        raise CellularError(f"{path}: the name must end in one of {', '.join(SOURCES)}")
    with readable(path):
        source = SOURCES[path.suffix](path)
    if missing := [name for name in columns if name not in source.columns]:
        raise CellularError(f"{path} has no column {missing[0]!r}: choose from {', '.join(source.columns)}")
    return source


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise a CellularError, which names the file, for whatever is wrong with it."""
    try:
        yield
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CellularError(f"cannot use the embeddings in {path}: {reason}") from error


class Usable(NamedTuple):
    """The embeddings of a column that can be decoded.

    Attributes:
        rows: (N,) int64, where they stand.
        embeddings: (N, D) float32 of unit length.
        reasons: of each row of the column why it is not among them; None: it is.
    """

    rows: NDArray[np.int64]
    embeddings: FloatArray
    reasons: list[str | None]


def usable(column: pa.ChunkedArray, dimension: int) -> Usable:
    """Those rows of a column of lists that hold D finite numbers and have a direction."""
    reasons: list[str | None] = [None] * len(column)
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    for row in np.flatnonzero(lengths != dimension).tolist():
        reasons[row] = "no embedding" if lengths[row] < 0 else "wrong dimension"
    full = np.flatnonzero(lengths == dimension)
    numbers = pc.list_flatten(column.take(pa.array(full))).cast(pa.float64())
    rows_ND = pc.fill_null(numbers, np.nan).to_numpy().reshape(-1, dimension)
    lengths_N = np.sqrt(np.einsum("nd,nd->n", rows_ND, rows_ND))
    for row in full[~np.isfinite(lengths_N)].tolist():
        reasons[row] = "not finite"
    for row in full[lengths_N == 0].tolist():
        reasons[row] = "zero vector"
    good = np.isfinite(lengths_N) & (lengths_N > 0)
    embeddings = (rows_ND[good] / lengths_N[good, None]).astype(np.float32)
    return Usable(full[good], embeddings, reasons)


def _in_folder(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.suffix in SOURCES and file.is_file()]
    return [file for file in files if not any(part[0] in "._" for part in file.relative_to(folder).parts)]


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _numbers(value: object) -> list[float] | None:
    """A list of numbers, of which null is one that is not finite."""
    numbers = isinstance(value, list) and all(n is None or isinstance(n, int | float) for n in value)
    return value if numbers else None  # type: ignore[return-value]


def _between(batches: Iterable[pa.RecordBatch], start: int, stop: int) -> Iterator[pa.RecordBatch]:
    """The rows from `start` on and before `stop` of batches that follow each other."""
    for batch in batches:
        if stop <= 0:
            return
        if start < batch.num_rows:
            yield batch.slice(max(0, start), min(stop, batch.num_rows) - max(0, start))
        start, stop = start - batch.num_rows, stop - batch.num_rows


def _list_size(schema: pa.Schema) -> int | None:
    """D of a column of lists, if it is fixed."""
    if EMBEDDING not in schema.names:
        return None
    kind = schema.field(EMBEDDING).type
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return None
    raise ValueError(f"column {EMBEDDING!r} holds {kind}, not lists of numbers")
