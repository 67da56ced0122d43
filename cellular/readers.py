"""One reader a format: each turns a unit of a file into a stream of records and rejects."""

import csv
import io
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cellular.config import CorpusConfig
from cellular.files import BUFFER_BYTES, Format, compression, open_file, open_stream
from cellular.records import Reason, Record, Reject, Unit, excerpt, is_utf8, record_or_reject

BATCH_ROWS = 1024
DELIMITERS = ",\t;|"
BOM = b"\xef\xbb\xbf"

Items = Iterator[Record | Reject | None]  # None: a blank row


# --- lines ------------------------------------------------------------------------------------------------


def _lines(unit: Unit, limit: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line with its end) of the lines that start in a unit, and of those that follow it.

    Of a line longer than `limit` only `limit` + 2 bytes are kept, which is enough to reject it.
    """
    with _open_at(unit) as stream:
        offset = unit.start
        if unit.start:  # from one byte early: a line that starts exactly here is ours
            offset += _skip_line(stream) - 1
        while line := stream.readline(limit + 2):
            start = offset
            offset += len(line)
            if not line.endswith(b"\n"):
                offset += _skip_line(stream)
            yield start, line if start else line.removeprefix(BOM)


def _open_at(unit: Unit) -> io.BufferedReader:
    if not unit.start:
        return open_stream(unit.uri)
    stream = open_file(unit.uri)
    stream.seek(unit.start - 1)
    return io.BufferedReader(stream, BUFFER_BYTES)


def _skip_line(stream: io.BufferedReader) -> int:
    """Read up to the end of the line, keeping nothing. Returns the number of bytes."""
    skipped = 0
    while part := stream.readline(BUFFER_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _own_lines(unit: Unit, limit: int) -> Iterator[tuple[int, bytes]]:
    """The lines that start in a unit, without their ends."""
    for offset, line in _lines(unit, limit):
        if unit.stop is not None and offset >= unit.stop:
            return
        yield offset, line.removesuffix(b"\n").removesuffix(b"\r")


def _own_paragraphs(unit: Unit, limit: int) -> Iterator[tuple[int, bytes]]:
    """Runs of lines that are not blank. One belongs to the unit in which the blank line before it starts."""
    mine, start, paragraph = not unit.start, 0, bytearray()
    for offset, line in _lines(unit, limit):
        beyond = unit.stop is not None and offset >= unit.stop
        if beyond and not mine:
            return
        if line.strip():
            start = start if paragraph else offset
            if mine and len(paragraph) <= limit:  # no more is needed to see that it is too long
                paragraph += line
            continue
        yield start, bytes(paragraph.rstrip())
        mine, paragraph = True, bytearray()
        if beyond:
            return
    yield start, bytes(paragraph.rstrip())


def _read_text(unit: Unit, corpus: CorpusConfig) -> Items:
    pieces = _own_lines if corpus.text_records == "line" else _own_paragraphs
    for offset, piece in pieces(unit, corpus.max_record_bytes):
        yield record_or_reject(offset, piece, corpus)


def _read_jsonl(unit: Unit, corpus: CorpusConfig) -> Items:
    for offset, line in _own_lines(unit, corpus.max_record_bytes):
        yield _json_item(offset, line, corpus) if line.strip() else None


def _json_item(row: int, line: bytes, corpus: CorpusConfig) -> Record | Reject | None:
    if len(line) > corpus.max_record_bytes:
        return Reject(row, "too long", excerpt(line))
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Reject(row, "not JSON" if is_utf8(line) else "not UTF-8", excerpt(line))
    if not isinstance(value, dict) or corpus.text_column not in value:
        return Reject(row, "missing column", excerpt(line))
    text = value[corpus.text_column]
    if not isinstance(text, str):
        return Reject(row, "null" if text is None else "not text", excerpt(line))
    return record_or_reject(row, text.encode(), corpus)


# --- CSV --------------------------------------------------------------------------------------------------


class _CsvLines:
    """Lines for csv.reader, which can go back to the line after the one at which a broken record began."""

    def __init__(self, unit: Unit, limit: int) -> None:
        self._lines = _lines(unit, limit)
        self._limit = limit
        self._again: deque[bytes] = deque()
        self.record: list[bytes] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)[1]
        self.record.append(line)
        if len(line) > self._limit:
            raise csv.Error("line longer than the limit")
        return line.decode("utf-8", "surrogateescape")

    def go_back(self) -> None:
        self._again.extendleft(reversed(self.record[1:]))


def _read_csv(unit: Unit, corpus: CorpusConfig) -> Items:
    """By Python's csv: pyarrow's gives up a whole file for an open quote, or for a row beyond its block."""
    # The limit is the process's, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), corpus.max_record_bytes))
    lines = _CsvLines(unit, corpus.max_record_bytes)
    header, delimiter = csv_header(next(lines, ""), corpus.text_column)
    if corpus.text_column not in header:
        raise pa.ArrowInvalid(f"no column {corpus.text_column}; it has {', '.join(header)}")
    column = header.index(corpus.text_column)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    for number, row in enumerate(_csv_rows(rows, lines)):
        yield _csv_item(number, row, len(header), column, corpus)


def csv_header(line: str, text_column: str) -> tuple[list[str], str]:
    """The column names, and the delimiter that yields the text column; a comma where none does."""
    parsed = [(next(csv.reader([line], delimiter=delimiter), []), delimiter) for delimiter in DELIMITERS]
    return next((found for found in parsed if text_column in found[0]), parsed[0])


def _csv_rows(rows: Iterator[list[str]], lines: _CsvLines) -> Iterator[list[str] | Reject]:
    """The rows that are not blank, with a reject (whose row is still to be numbered) for each broken one."""
    while True:
        lines.record.clear()
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            lines.go_back()
            reason: Reason = "too long" if "limit" in str(error) else "malformed row"
            yield Reject(-1, reason, excerpt(lines.record[0]))
        else:
            if row:
                yield row


def _csv_item(
    number: int, row: list[str] | Reject, fields: int, column: int, corpus: CorpusConfig
) -> Record | Reject | None:
    if isinstance(row, Reject):
        return row._replace(source_row=number)
    if len(row) != fields:
        return Reject(number, "malformed row", excerpt(",".join(row).encode("utf-8", "surrogateescape")))
    return record_or_reject(number, row[column].encode("utf-8", "surrogateescape"), corpus)


# --- Parquet ----------------------------------------------------------------------------------------------


def _read_parquet(unit: Unit, corpus: CorpusConfig) -> Items:
    with open_parquet(unit.uri) as file:
        if corpus.text_column not in file.schema_arrow.names:
            raise pa.ArrowInvalid(f"no column {corpus.text_column}")
        groups = list(range(file.num_row_groups))[unit.start : unit.stop]
        row = sum(file.metadata.row_group(group).num_rows for group in range(unit.start))
        for batch in file.iter_batches(BATCH_ROWS, groups, columns=[corpus.text_column]):
            for data in _as_bytes(batch.column(0)):
                yield Reject(row, "null", "") if data is None else record_or_reject(row, data, corpus)
                row += 1


@contextmanager
def open_parquet(uri: str) -> Iterator[pq.ParquetFile]:
    """Parquet is read from its end, so that a compressed file is unpacked to disk first."""
    if not compression(uri):
        with open_file(uri) as stream, pq.ParquetFile(stream) as file:
            yield file
        return
    with open_stream(uri) as packed, tempfile.TemporaryFile() as stream:
        shutil.copyfileobj(packed, stream, BUFFER_BYTES)
        with pq.ParquetFile(stream) as file:
            yield file


def _as_bytes(array: pa.Array) -> list[bytes | None]:
    """Text undecoded, since Parquet does not vouch for its UTF-8."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    values: list[bytes | None] = array.cast(pa.large_binary()).to_pylist()
    return values


READERS: dict[Format, Callable[[Unit, CorpusConfig], Items]] = {
    "parquet": _read_parquet,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "text": _read_text,
}
