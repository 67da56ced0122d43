"""Files of embeddings, whatever their format: their parts are the whole, and bad rows are told apart."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.embedding_sources import EMBEDDING, find_embeddings, open_source, usable
from cellular.errors import CellularError
from cellular.types import FloatArray


def write_npy(path: Path, rows: FloatArray) -> None:
    np.save(path, rows)


def write_arrow(path: Path, rows: FloatArray) -> None:
    table = pa.table({EMBEDDING: pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])})
    with path.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def write_parquet(path: Path, rows: FloatArray) -> None:
    column = pa.array(rows.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": range(len(rows)), EMBEDDING: column}), path, row_group_size=3)


def write_jsonl(path: Path, rows: FloatArray) -> None:
    path.write_text("".join(json.dumps({EMBEDDING: row}) + "\n\n" for row in rows.tolist()))


WRITERS = {"npy": write_npy, "arrow": write_arrow, "parquet": write_parquet, "jsonl": write_jsonl}
ROWS = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "write"), WRITERS.items())
@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_parts_of_a_file_are_the_file(
    tmp_path: Path, suffix: str, write: Callable[[Path, FloatArray], None], size: int
) -> None:
    path = tmp_path / f"rows.{suffix}"
    write(path, ROWS)
    source = open_source(path)
    parts = [
        source.read(start, start + size, [EMBEDDING])[EMBEDDING].to_pylist()
        for start in range(0, source.rows, size)
    ]
    np.testing.assert_allclose([row for part in parts for row in part], ROWS, rtol=1e-6)
    assert source.dimension in (None, 4)


@pytest.mark.parametrize(("suffix", "write"), WRITERS.items())
def test_an_empty_file_has_no_rows(
    tmp_path: Path, suffix: str, write: Callable[[Path, FloatArray], None]
) -> None:
    path = tmp_path / f"rows.{suffix}"
    write(path, ROWS[:0])
    source = open_source(path)
    assert source.rows == len(source.read(0, source.rows, [EMBEDDING])) == 0


def test_a_line_that_is_no_object_is_a_row_without_an_embedding(tmp_path: Path) -> None:
    lines = [
        '{"embedding": [3, 4]}',
        "damaged",
        '["a"]',
        '{"embedding": "a"}',
        '{"id": 1}',
        '{"embedding": [1, null]}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    column = open_source(tmp_path / "a.jsonl").read(0, 6, [EMBEDDING])[EMBEDDING]
    assert usable(column, 2).reasons == [None, *["no embedding"] * 4, "not finite"]


def test_rows_that_are_no_embeddings_are_told_apart_from_those_that_are() -> None:
    rows = [[3.0, 4.0], None, [1.0], [0.0, 0.0], [float("nan"), 1.0], [1.0, None], [0.0, 2.0]]
    found = usable(pa.chunked_array([rows[:3], rows[3:]], pa.list_(pa.float32())), 2)
    assert found.rows.tolist() == [0, 6]
    np.testing.assert_allclose(found.embeddings, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    nothing = "not finite"
    assert found.reasons == [None, "no embedding", "wrong dimension", "zero vector", nothing, nothing, None]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int64()])
def test_numbers_of_any_type_are_read(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array([3, 4]).cast(kind), 2)])
    np.testing.assert_allclose(usable(column, 2).embeddings, [[0.6, 0.8]], rtol=1e-6)


def test_inputs_are_files_folders_and_globs_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a.npy", "deep/b.npy", ".hidden.npy", "_temporary.npy"):
        np.save(tmp_path / name, ROWS)
    (tmp_path / "notes.txt").write_text("")
    expected = [tmp_path / "a.npy", tmp_path / "deep" / "b.npy"]
    assert (
        find_embeddings([str(tmp_path), str(tmp_path / "a.npy"), str(tmp_path / "*" / "*.npy")]) == expected
    )
    with pytest.raises(CellularError, match=r"no embeddings at .*missing"):
        find_embeddings([str(tmp_path / "missing")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "must end in one of"),
        ("a.npy", b"\x93NUMPY damaged", "cannot use the embeddings"),
        ("a.parquet", b"PAR1", "cannot use the embeddings"),
        ("a.jsonl", b"[1, 2]\n", "no JSON object"),
        ("a.jsonl", b'{"vector": [1.0]}\n', "no column 'embedding': choose from vector"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CellularError, match=message) as raised:
        open_source(tmp_path / name)
    assert name in str(raised.value)
