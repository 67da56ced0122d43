import gzip
import hashlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSystem

from cellular.config import CorpusConfig
from cellular.documents import read_records, split_units
from cellular.errors import CellularError
from cellular.files import atomic_path, find_inputs, open_stream, sha256_file, write_atomically


def corpus(*inputs: Path | str, **options: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"inputs": [str(item) for item in inputs], **options})


def write(path: Path, data: bytes = b"text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(config: CorpusConfig, root: Path) -> list[str]:
    return [str(Path(file.uri).relative_to(root)) for file in find_inputs(config)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ["b.txt", "a.jsonl.gz", "sub/c.CSV", "sub/deep/d.parquet", "e.tsv.zst", "f.md"]:
        write(tmp_path / name)
    for name in [".hidden.txt", "_SUCCESS", "_temporary/x.txt", ".git/y.txt", "picture.png", "sub/Makefile"]:
        write(tmp_path / name)
    write(tmp_path / "empty.txt", b"")
    return tmp_path


def test_folder_gives_known_types_recursively_without_hidden_or_empty_files(tree: Path) -> None:
    files = find_inputs(corpus(tree))
    found = {str(Path(file.uri).relative_to(tree)): file.format for file in files}
    assert found == {
        "a.jsonl.gz": "jsonl",
        "b.txt": "text",
        "e.tsv.zst": "csv",
        "f.md": "text",
        "sub/c.CSV": "csv",
        "sub/deep/d.parquet": "parquet",
    }
    assert files == sorted(files)
    assert all(file.size == 5 and file.mtime_ns > 0 for file in files)


def test_unknown_types_in_a_folder_are_counted(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_inputs(corpus(tree))
    assert "passed over 2 files" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["b.txt"]),
        ("**/*.CSV", ["sub/c.CSV"]),
        ("sub/**", ["sub/c.CSV", "sub/deep/d.parquet"]),
        ("*/deep/?.parquet", ["sub/deep/d.parquet"]),
        ("[ab].*", ["a.jsonl.gz", "b.txt"]),
    ],
)
def test_globs(tree: Path, pattern: str, expected: list[str]) -> None:
    assert names(corpus(tree / pattern), tree) == expected


def test_a_file_named_twice_is_read_once(tree: Path) -> None:
    inputs = corpus(tree / "b.txt", tree / "sub" / ".." / "b.txt", f"file://{tree}/b.txt", tree / "*.txt")
    assert names(inputs, tree) == ["b.txt"]


def test_an_explicit_name_wins_over_hiding_and_glob_characters(tmp_path: Path) -> None:
    write(tmp_path / "_a [1].txt")
    assert names(corpus(tmp_path / "_a [1].txt"), tmp_path) == ["_a [1].txt"]


def test_given_format_reads_any_name(tree: Path) -> None:
    assert [file.format for file in find_inputs(corpus(tree / "sub", format="text"))] == ["text"] * 3


@pytest.mark.parametrize(
    "name", ["nowhere", "nowhere/*.txt", "picture.png", "empty.txt", "*.nothing", "foo://x"]
)
def test_inputs_that_give_nothing_are_one_clear_line(tree: Path, name: str) -> None:
    with pytest.raises(CellularError) as error:
        find_inputs(corpus(name if "://" in name else tree / name))
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    with pytest.raises(CellularError, match="environment") as error:
        find_inputs(corpus("s3://key:secret@bucket/x.txt"))
    assert "secret" not in str(error.value)


@settings(deadline=None)
@given(data=st.binary(max_size=2000), suffix=st.sampled_from(["", ".gz", ".zst"]))
def test_streams_give_the_bytes_that_were_compressed(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": lambda raw: pa.compress(raw, "zstd", asbytes=True)}
    path = write(tmp_path_factory.mktemp("stream") / f"x.txt{suffix}", pack[suffix](data) if data else b"")
    with open_stream(str(path)) as stream:
        assert stream.read() == data


def test_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = write(tmp_path / "x", b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def _write_many(path: Path, digit: bytes) -> None:
    for _ in range(5):
        write_atomically(path, digit * 100_000)


def test_concurrent_writers_never_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path / "x", digit)) for digit in (b"1", b"2")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "x").exists():
            content = (tmp_path / "x").read_bytes()
            assert len(content) == 100_000 and len(set(content)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", b"data")
    assert (tmp_path / "x").stat().st_mode == write(tmp_path / "y").stat().st_mode
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"data").hexdigest()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        filesystem, _ = FileSystem.from_uri("s3://corpus?allow_bucket_creation=true")
        filesystem.create_dir("corpus")
        for name, data in {
            "a b é.txt": b"one\ntwo\n",
            "deep/c.jsonl.gz": gzip.compress(b'{"text": "three"}\n'),
            "_SUCCESS": b"done",
        }.items():
            with filesystem.open_output_stream(f"corpus/{name}", compression=None) as stream:
                stream.write(data)
        yield "s3://corpus"
    server.stop()


@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        (["s3://corpus"], ["one", "two", "three"]),
        (["s3://corpus/deep/"], ["three"]),
        (["s3://corpus/**/*.gz"], ["three"]),
        (["s3://corpus/a?b*.txt", "s3://corpus/a b é.txt"], ["one", "two"]),
        (["s3://corpus/a%20b%20%C3%A9.txt?region=us-east-1"], ["one", "two"]),
    ],
)
def test_s3_is_read_like_a_folder(bucket: str, inputs: list[str], texts: list[str]) -> None:
    config = corpus(*inputs)
    units = split_units(find_inputs(config), config, unit_bytes=4)
    assert [record[1] for unit in units for record in read_records(unit, config)] == texts


@pytest.mark.parametrize("path", ["nothing/*.txt", "nothing.txt"])
def test_missing_s3_object_is_one_clear_line(bucket: str, path: str) -> None:
    with pytest.raises(CellularError, match=r"no file at s3://corpus/nothing"):
        find_inputs(corpus(f"{bucket}/{path}"))


def test_storage_that_fails_is_an_error_and_not_a_reject(bucket: str) -> None:
    config = corpus(f"{bucket}/deep")
    (unit,) = split_units(find_inputs(config), config)
    filesystem, path = FileSystem.from_uri(unit.uri)
    filesystem.delete_file(path)
    with pytest.raises(OSError, match=r"c\.jsonl\.gz"):
        list(read_records(unit, config))
    with filesystem.open_output_stream(path, compression=None) as stream:
        stream.write(gzip.compress(b'{"text": "three"}\n'))


def test_local_storage_that_fails_is_an_error_and_not_a_reject(tmp_path: Path) -> None:
    config = corpus(write(tmp_path / "x.txt"))
    (unit,) = split_units(find_inputs(config), config)
    (tmp_path / "x.txt").unlink()
    with pytest.raises(FileNotFoundError):
        list(read_records(unit, config))
