"""What reading gives: records and rejects; and what it is divided into: units."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cellular.config import CorpusConfig
from cellular.files import Format

Reason = Literal[
    "malformed row",  # CSV: another number of fields than the header, or a quote that never ends
    "missing column",
    "not JSON",
    "not UTF-8",
    "not text",  # a number, list or object where text should be
    "null",
    "NUL byte",
    "too long",
    "unreadable file",  # damaged from here on
]

EXCERPT_CHARACTERS = 200


class Record(NamedTuple):
    """A document. `source_row` does not depend on how a file is divided.

    Parquet and CSV count the file's records from 0; JSON lines and plain text give the byte, after
    decompression, at which the record starts.
    """

    source_row: int
    text: str


class Reject(NamedTuple):
    """A row that gives no document, and why. `excerpt` shows the beginning of its bytes."""

    source_row: int
    reason: Reason
    excerpt: str


@dataclass(frozen=True, order=True)
class Unit:
    """What one task reads: the rows of a file that start in [start, stop), to the end where stop is None.

    Bounds are row groups of Parquet, bytes of uncompressed JSON lines and text. `source` is the file's place
    in the list of inputs. Units sort in corpus order, and `dataclasses.asdict` is JSON.
    """

    source: int
    start: int
    stop: int | None
    uri: str
    format: Format

    @property
    def id(self) -> str:
        """Unique in the corpus and fit for a file name; sorts like the unit."""
        return f"{self.source:06d}-{self.start:015d}"


def record_or_reject(row: int, data: bytes, corpus: CorpusConfig) -> Record | Reject | None:
    """The record that bytes hold, why they hold none, or None for blank ones."""
    if len(data) > corpus.max_record_bytes:
        return Reject(row, "too long", excerpt(data))
    if b"\0" in data:
        return Reject(row, "NUL byte", excerpt(data))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Reject(row, "not UTF-8", excerpt(data))
    return Record(row, text) if text and not text.isspace() else None


def excerpt(data: bytes) -> str:
    """The beginning of bytes as printable text, whatever they are."""
    text = data[:EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace").replace("\0", "\\0")
    return text[:EXCERPT_CHARACTERS]


def is_utf8(data: bytes) -> bool:
    """Whether bytes decode."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
