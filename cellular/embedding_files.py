"""Texts and embeddings in files: .npy, Arrow IPC (.arrow), Parquet, JSON lines.

Columns are `text`, string, and `embedding`, FixedSizeList<float>[D] (in JSON a list of D numbers).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cellular.checks import check_embeddings
from cellular.config import CorpusConfig
from cellular.documents import Reject, check_columns, read_records, split_units
from cellular.embedding_sources import EMBEDDING, open_source, readable
from cellular.errors import CellularError
from cellular.files import atomic_path, find_inputs
from cellular.types import FloatArray


def read_texts(path: str, column: str = "text") -> list[str]:
    """Every text of a corpus file or folder, in order; all of it in memory.

    Raises:
        CellularError: nothing there, no such column, or a row that holds no text: names it.
    """
    corpus = CorpusConfig(inputs=(path,), text_column=column)
    files = find_inputs(corpus)
    check_columns(files, corpus)
    texts = []
    for unit in split_units(files, corpus):
        for record in read_records(unit, corpus):
            if isinstance(record, Reject):
                raise CellularError(f"{unit.uri}, row {record.source_row}: {record.reason}; mend it")
            texts.append(record.text)
    return texts


def read_embeddings(path: Path, dimension: int) -> FloatArray:
    """The embeddings in a file, (N, D) float32, scaled to unit length.

    Raises:
        CellularError: no such file, another format, or vectors that are not usable: names the row.
    """
    source = open_source(path)
    with readable(path):
        column = source.read(0, source.rows, [EMBEDDING]).column(EMBEDDING)
        return check_embeddings(_matrix(column), dimension)


def write_embeddings(path: Path, texts: Sequence[str], embeddings: FloatArray) -> None:
    """Write N texts and their embeddings, (N, D) float32, in one step; .npy holds the embeddings only.

    Raises:
        CellularError: another format, or a folder that cannot be written.
    """
    write = _by_suffix(WRITERS, path)
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write(file, texts, embeddings)
    except OSError as error:
        raise CellularError(f"cannot write {path}: {error.strerror}") from error


def write_lines(file: BinaryIO, texts: Sequence[str], embeddings: FloatArray) -> None:
    """Write one JSON object a line, with `text` and `embedding`."""
    for text, embedding in zip(texts, embeddings, strict=True):
        row = {"text": text, "embedding": embedding}
        file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def check_output(path: Path) -> None:
    """Refuse a file name that `write_embeddings` cannot serve, before any work is done."""
    _by_suffix(WRITERS, path)
    if not path.absolute().parent.is_dir():
        raise CellularError(f"no folder {path.absolute().parent}: make it first")


def _by_suffix(table: dict[str, Any], path: Path) -> Any:
    if path.suffix not in table:
        raise CellularError(f"{path}: the name must end in one of {', '.join(table)}")
    return table[path.suffix]


def _matrix(column: pa.ChunkedArray) -> FloatArray:
    """Lists of numbers as a matrix: fixed in size, or all of one length."""
    if column.null_count:
        raise ValueError("there are nulls among them")
    rows: FloatArray = np.stack([np.asarray(row) for row in column.to_numpy()])
    return rows


def _table(texts: Sequence[str], embeddings: FloatArray) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), embeddings.shape[1])
    return pa.table({"text": pa.array(texts, pa.string()), "embedding": column})


def _write_arrow(file: BinaryIO, texts: Sequence[str], embeddings: FloatArray) -> None:
    table = _table(texts, embeddings)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _write_parquet(file: BinaryIO, texts: Sequence[str], embeddings: FloatArray) -> None:
    pq.write_table(_table(texts, embeddings), file, compression="zstd", use_dictionary=["text"])


WRITERS: dict[str, Callable[[BinaryIO, Sequence[str], FloatArray], None]] = {
    ".npy": lambda file, texts, embeddings: np.save(file, embeddings, allow_pickle=False),
    ".arrow": _write_arrow,
    ".parquet": _write_parquet,
    ".jsonl": write_lines,
}
