import csv
import gzip
import io
import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.config import CorpusConfig
from cellular.documents import Record, Reject, Unit, check_columns, read_records, split_units
from cellular.errors import CellularError
from cellular.files import find_inputs


def corpus(*paths: Path, **options: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"inputs": [str(path) for path in paths], **options})


def read(
    path: Path, data: bytes | None = None, unit_bytes: int = 1 << 20, **options: object
) -> list[Record | Reject]:
    if data is not None:
        path.write_bytes(data)
    config = corpus(path, **options)
    return [
        item
        for unit in split_units(find_inputs(config), config, unit_bytes)
        for item in read_records(unit, config)
    ]


def texts(items: list[Record | Reject]) -> list[str]:
    return [item.text for item in items if isinstance(item, Record)]


def reasons(items: list[Record | Reject]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Reject)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


# Lines in which everything that divides and spoils them is frequent.
LINES = st.lists(
    st.sampled_from([b"a", b"bc d", b"", b" ", b"\xff", b"x\0", b"\xc3\xa9" * 3, b"long" * 9]), max_size=30
)
ENDS = st.sampled_from([b"\n", b"\r\n"])


@settings(deadline=None)
@given(
    lines=LINES,
    end=ENDS,
    last=st.booleans(),
    unit_bytes=st.integers(1, 60),
    mode=st.sampled_from(["line", "paragraph"]),
)
def test_text_is_the_same_however_it_is_divided_or_compressed(
    folder: Path, lines: list[bytes], end: bytes, last: bool, unit_bytes: int, mode: str
) -> None:
    data = end.join(lines) + end * last or b"\n"
    whole = read(folder / "a.txt", data, text_records=mode, max_record_bytes=20)
    assert read(folder / "a.txt", unit_bytes=unit_bytes, text_records=mode, max_record_bytes=20) == whole
    assert read(folder / "a.txt.gz", gzip.compress(data), text_records=mode, max_record_bytes=20) == whole
    zstd = pa.compress(data, "zstd", asbytes=True)
    assert read(folder / "a.txt.zst", zstd, text_records=mode, max_record_bytes=20) == whole


@settings(deadline=None)
@given(lines=LINES, end=ENDS)
def test_every_line_is_a_record_a_reject_or_blank(folder: Path, lines: list[bytes], end: bytes) -> None:
    data = end.join(lines) or b"\n"
    items = read(folder / "b.txt", data, max_record_bytes=20)
    assert len(items) == sum(bool(line.strip()) for line in lines)
    for item in items:  # the row is the byte at which the line starts
        line = data[item.source_row :].split(end, 1)[0]
        if isinstance(item, Record):
            assert item.text == line.decode()
        else:
            assert item.reason == (
                "too long" if len(line) > 20 else "NUL byte" if b"\0" in line else "not UTF-8"
            )


JSON_ROWS = {
    b'{"text": "good \xc3\xa9"}': "good é",
    b'{"other": 1, "text": "good"}': "good",
    b'{"text": ""}': None,
    b"": None,
    b'{"text": null}': "null",
    b'{"text": 3}': "not text",
    b'{"text": ["a"]}': "not text",
    b'{"other": "a"}': "missing column",
    b'["text"]': "missing column",
    b'{"text": "a': "not JSON",
    b'{"text": "\\ud800"}': "not JSON",
    b'{"text": "\xff"}': "not UTF-8",
    b'{"text": "a\\u0000b"}': "NUL byte",
    b'{"text": "' + b"a" * 200 + b'"}': "too long",
}


@settings(deadline=None)
@given(rows=st.lists(st.sampled_from(sorted(JSON_ROWS)), max_size=20), unit_bytes=st.integers(1, 300))
def test_every_json_row_is_a_record_a_reject_or_blank(
    folder: Path, rows: list[bytes], unit_bytes: int
) -> None:
    items = read(folder / "a.jsonl", b"\n".join(rows) + b"\n", unit_bytes, max_record_bytes=100)
    assert [item[1] for item in items] == [JSON_ROWS[row] for row in rows if JSON_ROWS[row] is not None]
    assert len({item.source_row for item in items}) == len(items)


FIELDS = st.text(st.sampled_from('ab ,"\n\r;é'), max_size=8)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(FIELDS, FIELDS), max_size=12))
def test_csv_gives_what_was_written(folder: Path, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("id", "text"), *rows])
    items = read(folder / "a.csv", buffer.getvalue().encode())
    expected = [Record(row, text) for row, (_, text) in enumerate(rows) if text.strip()]
    assert items == expected


def test_one_bad_csv_row_costs_no_other(folder: Path) -> None:
    data = (
        b'id,text\n1,one\n2,\xff\n3\n4,a,b\n5,"open\n6,"six"\n\n7,\n8,x\0y\n9,"n\nine"\n10,'
        + b"t" * 99
        + b"\n11,last\n"
    )
    items = read(folder / "b.csv", data, max_record_bytes=60)
    assert [(item.source_row, item[1]) for item in items] == [
        (0, "one"),
        (1, "not UTF-8"),
        (2, "malformed row"),
        (3, "malformed row"),
        (4, "malformed row"),
        (5, "six"),
        (7, "NUL byte"),
        (8, "n\nine"),
        (9, "too long"),
        (10, "last"),
    ]


def test_a_quote_that_never_ends_costs_one_row(folder: Path) -> None:
    data = b'id,text\n1,"open\n' + b"".join(b"%d,row\n" % number for number in range(2, 50))
    items = read(folder / "c.csv", data)
    assert reasons(items) == ["malformed row"]
    assert len(texts(items)) == 48


@pytest.mark.parametrize("name", ["d.tsv", "d.csv"])
@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
def test_csv_delimiter_is_the_one_that_shows_the_column(folder: Path, name: str, delimiter: str) -> None:
    data = f"\ufeffid{delimiter}text\r\n1{delimiter}one\r\n".encode()
    assert read(folder / name, data) == [Record(0, "one")]


def test_byte_order_mark_is_not_text(folder: Path) -> None:
    assert read(folder / "e.txt", b"\xef\xbb\xbfone\n") == [Record(0, "one")]
    assert read(folder / "e.jsonl", b'\xef\xbb\xbf{"text": "one"}\n') == [Record(0, "one")]


def test_paragraphs_join_wrapped_lines(folder: Path) -> None:
    items = read(folder / "f.txt", b"\n\nfirst\r\nwraps\r\n \r\nsecond\n\n\nthird", text_records="paragraph")
    assert texts(items) == ["first\r\nwraps", "second", "third"]


# --- Parquet ---

VALUES = [b"one", None, b"\xff\xfe", b"", "zwei é".encode(), b"a\0b", b"t" * 99, b"last"]
EXPECTED = [
    (0, "one"),
    (1, "null"),
    (2, "not UTF-8"),
    (4, "zwei é"),
    (5, "NUL byte"),
    (6, "too long"),
    (7, "last"),
]


def unchecked_strings(values: list[bytes | None]) -> pa.Array:
    """A string column as careless writers make it: nothing has validated its UTF-8."""
    binary = pa.array(values, pa.binary())
    valid, offsets, data = binary.buffers()
    return pa.StringArray.from_buffers(len(values), offsets, data, valid)


AS_KIND = {
    "string": lambda array: array,
    "binary": lambda array: array.view(pa.binary()),
    "binary_view": lambda array: array.view(pa.binary()).cast(pa.binary_view()),
    "large_string": lambda array: array.view(pa.binary()).cast(pa.large_binary()).view(pa.large_string()),
}


@pytest.mark.parametrize("kind", AS_KIND)
@pytest.mark.parametrize("groups", [100, 3])
def test_parquet_rows_are_judged_one_by_one(folder: Path, kind: str, groups: int) -> None:
    table = pa.table({"id": range(len(VALUES)), "text": AS_KIND[kind](unchecked_strings(VALUES))})
    pq.write_table(table, folder / "a.parquet", row_group_size=groups)
    items = read(folder / "a.parquet", unit_bytes=1, max_record_bytes=60)
    assert [(item.source_row, item[1]) for item in items] == EXPECTED
    packed = gzip.compress((folder / "a.parquet").read_bytes())
    assert read(folder / "a.parquet.gz", packed, max_record_bytes=60) == items


def test_parquet_dictionaries_and_null_columns(folder: Path) -> None:
    column = pa.array(["a", None, "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"text": column, "none": pa.nulls(4)}), folder / "b.parquet")
    assert [item[1] for item in read(folder / "b.parquet")] == ["a", "null", "b", "a"]
    assert reasons(read(folder / "b.parquet", text_column="none")) == ["null"] * 4


@settings(deadline=None)
@given(rows=st.integers(0, 40), group=st.integers(1, 12), unit_bytes=st.integers(1, 2000))
def test_row_groups_give_every_row_once(folder: Path, rows: int, group: int, unit_bytes: int) -> None:
    table = pa.table({"text": pa.array([f"row {row}" for row in range(rows)], pa.string())})
    pq.write_table(table, folder / "c.parquet", row_group_size=group)
    assert read(folder / "c.parquet", unit_bytes=unit_bytes) == [
        Record(row, f"row {row}") for row in range(rows)
    ]


# --- damage ---


def damaged_gzip(data: bytes) -> bytes:
    packed = gzip.compress(data)
    return packed[: len(packed) // 2]


def test_damaged_file_gives_what_precedes_the_damage_and_one_reject(folder: Path) -> None:
    lines = "".join(f"line number {number * 7919 % 100_003}\n" for number in range(200_000))
    items = read(folder / "damaged.txt.gz", damaged_gzip(lines.encode()))
    assert reasons(items) == ["unreadable file"]
    assert items[-1].source_row > items[-2].source_row
    assert texts(items) == lines.splitlines()[: len(items) - 1]
    assert len(items) > 1000


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.parquet", b"no parquet"),
        ("x.jsonl.gz", b"no gzip"),
        ("x.txt.zst", b"no zstd"),
        ("x.csv", b"a,b\n1,2\n"),
    ],
)
def test_a_damaged_file_among_good_ones_is_one_reject(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "good.jsonl").write_bytes(b'{"text": "good"}\n')
    (tmp_path / name).write_bytes(data)
    config = corpus(tmp_path)
    files = find_inputs(config)
    if name != "x.csv":
        check_columns(files, config)
    items = [item for unit in split_units(files, config, 1) for item in read_records(unit, config)]
    assert [item[1] for item in items] == ["good", "unreadable file"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.parquet", b"no parquet"),
        ("x.jsonl.gz", b"no gzip"),
        ("x.json", b'[\n{"text": "an array"}\n]'),
        ("x.txt.gz", b"no gzip"),
        ("x.txt.zst", b"no zstd"),
    ],
)
def test_no_readable_file_is_an_error_before_work(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    config = corpus(tmp_path)
    with pytest.raises(CellularError, match=name) as error:
        check_columns(find_inputs(config), config)
    assert "\n" not in str(error.value)


def test_missing_column_names_file_column_and_choices(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "id": [1]}), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text("body,id\na,1\n")
    (tmp_path / "x.jsonl").write_bytes(b'broken\n{"body": "a"}\n{"id": 1}\n')
    for name in ["x.parquet", "x.csv", "x.jsonl"]:
        config = corpus(tmp_path / name)
        with pytest.raises(CellularError, match=rf"{name} has no column 'text'.*body, id"):
            check_columns(find_inputs(config), config)
        config = corpus(tmp_path / name, text_column="body")
        check_columns(find_inputs(config), config)
    config = corpus(tmp_path / "x.parquet", text_column="id")
    with pytest.raises(CellularError, match="'id' holds int64"):
        check_columns(find_inputs(config), config)


def test_key_may_be_absent_from_some_json_rows(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"id": 1}\n{"text": "a"}\n')
    config = corpus(tmp_path)
    check_columns(find_inputs(config), config)


# --- units and memory ---


def test_units_are_json_stable_and_sorted(tmp_path: Path) -> None:
    for name in ["a.txt", "b.jsonl", "c.csv", "d.txt.gz"]:
        (tmp_path / name).write_bytes(b"x" * 100)
    config = corpus(tmp_path)
    units = split_units(find_inputs(config), config, 30)
    assert units == sorted(units, key=lambda unit: unit.id) == split_units(find_inputs(config), config, 30)
    assert [unit.source for unit in units] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3]
    assert [Unit(**json.loads(orjson.dumps(asdict(unit)))) for unit in units] == units
    assert len({unit.id for unit in units}) == len(units)


def test_file_that_vanished_is_an_error_before_work(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "a"}\n')
    config = corpus(tmp_path)
    files = find_inputs(config)
    (tmp_path / "x.jsonl").unlink()
    with pytest.raises(CellularError, match="cannot read"):
        check_columns(files, config)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("x.txt.gz", b"", b"last"),
        ("x.jsonl.gz", b"", b'{"text": "last"}'),
        ("x.csv.gz", b"text\n", b"last"),
    ],
)
@pytest.mark.parametrize("mode", ["line", "paragraph"])
def test_an_enormous_line_is_rejected_in_little_memory(
    tmp_path: Path, name: str, first: bytes, last: bytes, mode: str
) -> None:
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(first)
        for _ in range(32):
            file.write(b"x" * (1 << 20))
        file.write(b"\n\n" + last)
    tracemalloc.start()
    items = read(tmp_path / name, max_record_bytes=1 << 16, text_records=mode)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [item[1] for item in items] == ["too long", "last"]
    assert isinstance(items[0], Reject) and len(items[0].excerpt) == 200
    assert peak < 8 << 20
