"""The first stage of a build: documents in, sorted chunks of distinct phrases out."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cellular.config import CorpusConfig, PhraseRules
from cellular.documents import read_records
from cellular.files import atomic_path, write_atomically
from cellular.phrases import reject_reason, segment
from cellular.records import Record, Reject, Unit

CHUNK_PHRASES = 200_000  # distinct phrases held in memory before a chunk is written
ROW_GROUP = 2_048  # small, so that a range of hashes is read without the rest of its chunk
REJECT_BATCH = 10_000

SEGMENT_SCHEMA = pa.schema(
    {
        "hash": pa.uint64(),
        "phrase": pa.string(),
        "count": pa.uint32(),
        "source": pa.int32(),
        "row": pa.int64(),
        "position": pa.int32(),
        "base_id": pa.int64(),  # id in the bank that is appended to; null for a phrase of the new corpus
    }
)
REJECT_SCHEMA = pa.schema(
    {"source": pa.int32(), "row": pa.int64(), "reason": pa.string(), "excerpt": pa.string()}
)

Occurrences = list[int]  # count, then source, row and position of the first


def hash_phrases(phrases: Iterable[str]) -> np.ndarray:
    """64 bits of BLAKE2b of each phrase, (N,) uint64: the same in every process, version and machine."""
    digests = b"".join(hashlib.blake2b(phrase.encode(), digest_size=8).digest() for phrase in phrases)
    return np.frombuffer(digests, "<u8")


def write_chunk(path: Path, columns: dict[str, Any]) -> None:
    """Write phrases and their columns, sorted by hash, as one Parquet file."""
    hashes = hash_phrases(columns["phrase"])
    fields = [field for field in SEGMENT_SCHEMA if field.name == "hash" or field.name in columns]
    table = pa.table({"hash": hashes, **columns}, schema=pa.schema(fields)).take(np.argsort(hashes))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="zstd", use_dictionary=False)


def chunk_path(output: Path, number: int) -> Path:
    """A chunk of the piece whose counts are in `output`."""
    return output.with_suffix(f".{number:05d}.parquet")


def rejects_path(output: Path) -> Path:
    """The rejects of the piece whose counts are in `output`."""
    return output.with_suffix(".rejects.parquet")


class RejectWriter:
    """Collects the rows that could not be read and writes them in batches to one Parquet file."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, REJECT_SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, source: int, reject: Reject) -> None:
        """Note one row of input file number `source`."""
        row = {"source": source, "row": reject.source_row, "reason": reject.reason, "excerpt": reject.excerpt}
        self._rows.append(row)
        if len(self._rows) >= REJECT_BATCH:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, REJECT_SCHEMA))
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()


@dataclass
class Tally:
    """What a piece held; its JSON is the piece's output."""

    chunks: int = 0
    rows: int = 0  # phrases in the chunks
    records: int = 0
    occurrences: int = 0  # of phrases that were kept
    dropped: Counter[str] = field(default_factory=Counter)  # occurrences by rule
    rejects: Counter[str] = field(default_factory=Counter)  # records by reason

    def write(self, path: Path) -> None:
        """Mark the piece as done."""
        write_atomically(path, json.dumps(vars(self)).encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The tally of a finished piece."""
        counts = json.loads(path.read_bytes())
        counters = {name: Counter(counts[name]) for name in ("dropped", "rejects")}
        return cls(**(counts | counters))

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Segmenter:
    """Turns one piece of the corpus into chunks of its distinct phrases.

    Memory is bounded by `CHUNK_PHRASES`, whatever the size of the piece.
    """

    def __init__(self, corpus: CorpusConfig, rules: PhraseRules) -> None:
        self._corpus = corpus
        self._rules = rules

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Segment the `units` (JSON) of a piece into chunks and rejects, then write its `output`."""
        output, tally = Path(item["output"]), Tally()
        units = [Unit(**unit) for unit in json.loads(item["units"])]
        with atomic_path(rejects_path(output)) as temporary, RejectWriter(temporary) as rejects:
            for phrases in self._chunks(self._records(units, rejects, tally), tally):
                write_chunk(chunk_path(output, tally.chunks), _columns(phrases))
                tally.chunks += 1
                tally.rows += len(phrases)
        tally.write(output)
        return {"phrases": tally.occurrences}

    def _records(
        self, units: Sequence[Unit], rejects: RejectWriter, tally: Tally
    ) -> Iterator[tuple[int, Record]]:
        for unit in units:
            for record in read_records(unit, self._corpus):
                tally.records += 1
                if isinstance(record, Record):
                    yield unit.source, record
                else:
                    tally.rejects[record.reason] += 1
                    rejects.add(unit.source, record)

    def _chunks(
        self, records: Iterable[tuple[int, Record]], tally: Tally
    ) -> Iterator[dict[str, Occurrences]]:
        phrases: dict[str, Occurrences] = {}
        for source, record in records:
            for position, phrase in enumerate(segment(record.text, self._rules)):
                if reason := reject_reason(phrase, self._rules):
                    tally.dropped[reason] += 1
                    continue
                tally.occurrences += 1
                phrases.setdefault(phrase, [0, source, record.source_row, position])[0] += 1
            if len(phrases) >= CHUNK_PHRASES:
                yield phrases
                phrases = {}
        if phrases:
            yield phrases


def _columns(phrases: dict[str, Occurrences]) -> dict[str, Any]:
    numbers = np.array(list(phrases.values()), np.int64).T
    names = ("count", "source", "row", "position")
    types = [SEGMENT_SCHEMA.field(name).type.to_pandas_dtype() for name in names]
    columns = [values.astype(dtype) for values, dtype in zip(numbers, types, strict=True)]
    return {"phrase": list(phrases), **dict(zip(names, columns, strict=True))}


class BankSegmenter:
    """Turns record batches of an existing bank into chunks, so that a build can add to the bank."""

    def __init__(self, phrases: Path) -> None:
        self._phrases = phrases

    def __call__(self, item: dict[str, Any]) -> dict[str, int]:
        """Write batch number `batch`, whose first phrase has id `first_id`, as a chunk beside `output`."""
        output = Path(item["output"])
        with pa.memory_map(str(self._phrases)) as file:
            batch = pa.ipc.open_file(file).get_batch(int(item["batch"]))
            columns: dict[str, Any] = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns["phrase"] = columns["phrase"].to_pylist()
            columns["base_id"] = pa.array(np.arange(batch.num_rows) + int(item["first_id"]))
            write_chunk(chunk_path(output, 0), columns)
        Tally(chunks=1, rows=batch.num_rows).write(output)
        return {"phrases": batch.num_rows}
