"""Files of embeddings, read in parts: .npy, Arrow IPC (.arrow), Parquet, JSON lines.

Shapes: N rows, D numbers of an embedding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellular.errors import CellularError
from cellular.types import FloatArray

EMBEDDING = "embedding"

Bounds = tuple[int, int | None]  # rows from the first on and before the second; None: to the end


class Source(Protocol):
    """A file of embeddings, opened.

    Attributes:
        columns: their names; one is EMBEDDING.
        dimension: D, where the format says that all embeddings are of one length.
        rows: N, where the format says it.
    """

    columns: list[str]
    dimension: int | None
    rows: int | None

    def bounds(self, rows: int) -> Iterable[Bounds]:
        """Parts of about so many rows."""

    def read(self, bounds: Bounds, columns: Sequence[str]) -> pa.Table:
        """Some columns of a part."""


class NumpySource:
    """A matrix (N, D) of a floating dtype, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._matrix.ndim != 2 or self._matrix.dtype.kind != "f":
            raise ValueError(
                f"it holds {self._matrix.dtype} of shape {self._matrix.shape}, not (N, D) floats"
            )
        self.columns, (self.rows, self.dimension) = [EMBEDDING], self._matrix.shape

    def bounds(self, rows: int) -> Iterator[Bounds]:
        """Parts of so many rows."""
        return _even(self.rows, rows)

    def read(self, bounds: Bounds, columns: Sequence[str]) -> pa.Table:
        """The embeddings of a part."""
        numbers = pa.array(np.ascontiguousarray(self._matrix[slice(*bounds)]).ravel())
        return pa.table({EMBEDDING: pa.FixedSizeListArray.from_arrays(numbers, self.dimension)}).select(
            columns
        )


class ArrowSource:
    """Record batches, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.columns, self.rows = self._table.column_names, self._table.num_rows
        self.dimension = _list_size(self._table.schema)

    def bounds(self, rows: int) -> Iterator[Bounds]:
        """Parts of so many rows."""
        return _even(self.rows, rows)

    def read(self, bounds: Bounds, columns: Sequence[str]) -> pa.Table:
        """Some columns of a part."""
        return _sliced(self._table, bounds, columns)


class ParquetSource:
    """Row groups, which are read whole."""

    def __init__(self, path: Path) -> None:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._path, self._ends = path, list(accumulate(sizes))
        self.columns, self.dimension, self.rows = schema.names, _list_size(schema), metadata.num_rows

    def bounds(self, rows: int) -> Iterator[Bounds]:
        """Parts of at least so many rows, but for the last."""
        start = 0
        for end in self._ends:
            if end - start >= rows or (end == self.rows and end > start):
                yield start, end
                start = end

    def read(self, bounds: Bounds, columns: Sequence[str]) -> pa.Table:
        """Some columns of a part."""
        start, stop = bounds[0], self.rows if bounds[1] is None else bounds[1]
        groups = [number for number, end in enumerate(self._ends) if start < end <= stop]
        with pq.ParquetFile(self._path) as file:
            return file.read_row_groups(groups, columns=list(columns))


class LinesSource:
    """JSON objects, a line each: one part, since no line says where the others begin."""

    dimension: int | None = None
    rows: int | None = None

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            first = next((orjson.loads(line) for line in file if line.strip()), {EMBEDDING: None})
        if not isinstance(first, dict):
            raise ValueError("its first line is no JSON object")
        self._path, self.columns = path, list(first)

    def bounds(self, rows: int) -> Iterator[Bounds]:
        """The whole file."""
        yield 0, None

    def read(self, bounds: Bounds, columns: Sequence[str]) -> pa.Table:
        """Some columns of the file."""
        objects = [orjson.loads(line) for line in self._path.read_bytes().splitlines() if line.strip()]
        schema = None if objects else pa.schema([(name, pa.list_(pa.float64())) for name in columns])
        return _sliced(pa.Table.from_pylist(objects, schema), bounds, columns)


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


def _even(count: int, rows: int) -> Iterator[Bounds]:
    for start in range(0, count, rows):
        yield start, min(start + rows, count)


def _sliced(table: pa.Table, bounds: Bounds, columns: Sequence[str]) -> pa.Table:
    start, stop = bounds
    return table.select(list(columns)).slice(start, None if stop is None else stop - start)


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
