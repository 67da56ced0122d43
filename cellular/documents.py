"""Documents of a corpus: dividing it into units of work, reading them, checking it before work starts."""

from collections.abc import Callable, Iterator, Sequence

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cellular.config import CorpusConfig
from cellular.errors import CellularError
from cellular.files import Format, InputFile, compression, open_file, open_stream
from cellular.readers import BOM, READERS, csv_header, open_parquet
from cellular.records import Reason, Record, Reject, Unit, excerpt

__all__ = ["Reason", "Record", "Reject", "Unit", "check_columns", "read_records", "split_units"]

TEXT_TYPES = {
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.null(),
}
UNIT_BYTES = 64 << 20
CHECKED_FILES = 100
CHECKED_LINES = 100
STORAGE_ERRORS = ("AWS Error", "Azure Error", "google::cloud")  # how pyarrow's file systems name them


def split_units(files: Sequence[InputFile], corpus: CorpusConfig, unit_bytes: int = UNIT_BYTES) -> list[Unit]:
    """Divide a corpus into units of about `unit_bytes` stored bytes: the same list on every call."""
    return [
        Unit(source, start, stop, file.uri, file.format)
        for source, file in enumerate(files)
        for start, stop in _bounds(file, corpus, unit_bytes)
    ]


def read_records(unit: Unit, corpus: CorpusConfig) -> Iterator[Record | Reject]:
    """The records of a unit in file order, and a reject for each row that holds none. Blank rows are skipped.

    Memory does not grow with the file or with a line. A damaged file gives what precedes the damage, then
    one reject. A storage that fails is an `OSError`: trying again may help, so nothing is rejected.
    """
    row = -1
    try:
        for item in READERS[unit.format](unit, corpus):
            if item is not None:
                row = item.source_row
                yield item
    except (OSError, pa.ArrowException) as error:
        if not _is_damage(error):
            raise
        yield Reject(row + 1, "unreadable file", excerpt(str(error).encode()))


def check_columns(files: Sequence[InputFile], corpus: CorpusConfig, others: Sequence[str] = ()) -> None:
    """See that the text column and others exist, by schemas, headers and first rows, before any work starts.

    Raises:
        CellularError: a file lacks the column, or not one file can be read.
    """
    damaged = []
    for file in files[:CHECKED_FILES]:
        try:
            columns = COLUMNS[file.format](file, corpus)
        except (OSError, pa.ArrowException) as error:
            if not _is_damage(error):
                raise CellularError(f"cannot read {file.uri}: {_one_line(error)}") from error
            damaged.append(f"{file.uri}: {_one_line(error)}")
            continue
        if missing := [name for name in (corpus.text_column, *others) if name not in columns]:
            there = ", ".join(columns) or "no columns"
            raise CellularError(f"{file.uri} has no column {missing[0]!r}: choose from {there}")
    if damaged and len(damaged) == len(files):
        raise CellularError(f"no input can be read; {damaged[0]}: check its format")


def _is_damage(error: Exception) -> bool:
    """Whether bytes were read and make no sense, in contrast to storage that did not give them."""
    if isinstance(error, MemoryError):
        return False
    from_storage = getattr(error, "errno", None) is not None or any(s in str(error) for s in STORAGE_ERRORS)
    return not (isinstance(error, OSError) and from_storage)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# --- columns ----------------------------------------------------------------------------------------------


def _parquet_columns(file: InputFile, corpus: CorpusConfig) -> list[str]:
    with open_parquet(file.uri) as parquet:
        schema = parquet.schema_arrow
    names: list[str] = schema.names
    if corpus.text_column in names:
        kind = schema.field(corpus.text_column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if kind not in TEXT_TYPES:
            raise CellularError(
                f"{file.uri}: column {corpus.text_column!r} holds {kind}, not text: choose another"
            )
    return names


def _csv_columns(file: InputFile, corpus: CorpusConfig) -> list[str]:
    with open_stream(file.uri) as stream:
        line = stream.readline(corpus.max_record_bytes)
    return csv_header(line.removeprefix(BOM).decode("utf-8", "replace"), corpus.text_column)[0]


def _jsonl_columns(file: InputFile, corpus: CorpusConfig) -> list[str]:
    """The keys of the first objects."""
    with open_stream(file.uri) as stream:
        lines = [stream.readline(corpus.max_record_bytes) for _ in range(CHECKED_LINES)]
    if lines[0].startswith(b"[") and _parsed(lines[0]) is None:
        raise pa.ArrowInvalid("one JSON array, where one object a line is needed")
    objects = [value for line in lines if isinstance(value := _parsed(line), dict)]
    if not objects:
        raise pa.ArrowInvalid(f"none of its first {CHECKED_LINES} lines is a JSON object")
    return list(dict.fromkeys(key for value in objects for key in value))


def _text_columns(file: InputFile, corpus: CorpusConfig) -> list[str]:
    """Text needs no column, only to be readable."""
    with open_stream(file.uri) as stream:
        stream.read(1)
    return [corpus.text_column]


def _parsed(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


COLUMNS: dict[Format, Callable[[InputFile, CorpusConfig], list[str]]] = {
    "parquet": _parquet_columns,
    "csv": _csv_columns,
    "jsonl": _jsonl_columns,
    "text": _text_columns,
}


# --- dividing ---------------------------------------------------------------------------------------------


def _bounds(file: InputFile, corpus: CorpusConfig, unit_bytes: int) -> list[tuple[int, int | None]]:
    if file.size <= unit_bytes or compression(file.uri) or file.format == "csv":
        return [(0, None)]  # CSV: only a reader that starts at the top knows which newlines are quoted
    if file.format == "parquet":
        return _row_group_bounds(file, corpus, unit_bytes)
    return _between(list(range(0, file.size, unit_bytes)))


def _between(starts: list[int]) -> list[tuple[int, int | None]]:
    return list(zip(starts, [*starts[1:], None], strict=True))


def _row_group_bounds(file: InputFile, corpus: CorpusConfig, unit_bytes: int) -> list[tuple[int, int | None]]:
    try:
        with open_file(file.uri) as stream:
            metadata = pq.read_metadata(stream)
    except (OSError, pa.ArrowException) as error:
        if not _is_damage(error):
            raise
        return [(0, None)]
    starts, held = [0], 0
    for group in range(metadata.num_row_groups):
        size = _column_bytes(metadata.row_group(group), corpus.text_column)
        if held and held + size > unit_bytes:
            starts.append(group)
            held = 0
        held += size
    return _between(starts)


def _column_bytes(group: pq.RowGroupMetaData, column: str) -> int:
    chunks = (group.column(i) for i in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)
