"""Files: finding a corpus, reading it decompressed, and writing so that no crash leaves half a file."""

import hashlib
import io
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args
from urllib.parse import quote, urlsplit

import pyarrow as pa
from fsspec.utils import glob_translate
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from cellular.config import CorpusConfig
from cellular.errors import CellularError

log = logging.getLogger(__name__)

Format = Literal["parquet", "jsonl", "csv", "text"]

FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, order=True)
class InputFile:
    """A file of the corpus. `uri` is an absolute path or a URI; `size` is in bytes, as stored."""

    uri: str
    size: int
    mtime_ns: int
    format: Format


def find_inputs(corpus: CorpusConfig) -> list[InputFile]:
    """The files that a corpus names: sorted, each once, none empty.

    Folders are searched recursively. Hidden files and markers such as `_SUCCESS` are passed over, and with
    `format="auto"` so are files of an unknown type, unless they are named themselves.

    Raises:
        CellularError: an input matches nothing or cannot be read, or every file is empty.
    """
    found = [file for pattern in corpus.inputs for file in _find(pattern, corpus)]
    files = sorted({file.uri: file for file in found if file.size}.values())
    if not files:
        raise CellularError(f"every file of {', '.join(corpus.inputs)} is empty: give files that hold text")
    return files


def compression(uri: str) -> str | None:
    """The codec that a file's name announces."""
    return COMPRESSIONS.get(PurePosixPath(uri).suffix.lower())


def locate(uri: str) -> tuple[FileSystem, str]:
    """The file system of a local path or URI, and the path in it."""
    if "://" not in uri:
        return LocalFileSystem(), str(Path(uri).expanduser().resolve())
    if "@" in urlsplit(uri).netloc:
        raise CellularError("an input holds credentials, which a bank would keep: use the environment")
    safe = "/:%*" + ("?=&" if _query(uri) else "")
    filesystem, path = FileSystem.from_uri(quote(uri, safe))  # S3 heeds AWS_ENDPOINT_URL here
    return filesystem, path


def open_file(uri: str) -> pa.NativeFile:
    """The bytes as stored, seekable."""
    filesystem, path = locate(uri)
    return filesystem.open_input_file(path)


def open_stream(uri: str) -> io.BufferedReader:
    """The bytes decompressed (.gz, .zst), to be read from first to last."""
    filesystem, path = locate(uri)
    stream = filesystem.open_input_stream(path, compression=compression(uri), buffer_size=BUFFER_BYTES)
    return io.BufferedReader(stream, BUFFER_BYTES)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for a writer; renamed to it on success, removed on error.

    Readers see the old file or the new one, complete and on the disk, whatever is killed when.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content, so that no reader and no crash ever meets half of it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _find(pattern: str, corpus: CorpusConfig) -> list[InputFile]:
    try:
        filesystem, path = locate(pattern)
        info = filesystem.get_file_info(path)
        named = info.type == FileType.File
        infos = [info] if named else _list(filesystem, path, info)
    except (OSError, pa.ArrowException) as error:
        raise CellularError(f"cannot read {pattern}: {' '.join(str(error).split())}") from error
    if not infos:
        raise CellularError(f"no file at {pattern}: check the path (folders, globs and s3:// work too)")
    files = [_input_file(info, pattern, corpus) for info in infos]
    known = [file for file in files if file is not None]
    if not known:
        raise CellularError(
            f"{pattern}: no file of a known type ({' '.join(FORMATS)}): name its format (one of {_choices()})"
        )
    if len(known) < len(files):
        log.warning("%s: passed over %d files of unknown type", pattern, len(files) - len(known))
    return known


def _choices() -> str:
    return ", ".join(get_args(Format))


def _list(filesystem: FileSystem, path: str, info: FileInfo) -> list[FileInfo]:
    """The visible files under a folder, or those that a glob matches."""
    if info.type == FileType.Directory:
        base, matches, recursive = path, re.compile(""), True
    else:
        base = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
        matches, recursive = re.compile(glob_translate(path)), "/" in path[len(base) + 1 :] or "**" in path
    root = base or path[: path.startswith("/")]
    selector = FileSelector(root, allow_not_found=True, recursive=recursive)
    files = [found for found in filesystem.get_file_info(selector) if found.type == FileType.File]
    return [file for file in files if matches.match(file.path) and not _hidden(file.path[len(base) :])]


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(path).parts)


def _input_file(info: FileInfo, pattern: str, corpus: CorpusConfig) -> InputFile | None:
    kind = _format(info.path) if corpus.format == "auto" else corpus.format
    return kind and InputFile(_uri(info.path, pattern), info.size, info.mtime_ns or 0, kind)


def _format(path: str) -> Format | None:
    name = PurePosixPath(path)
    return FORMATS.get((name.with_suffix("") if compression(path) else name).suffix.lower())


def _uri(path: str, pattern: str) -> str:
    """The URI of a path that a pattern led to; a local one stays a path."""
    scheme, separator, _ = pattern.partition("://")
    if not separator or scheme == "file":
        return path
    return f"{scheme}://{quote(path)}" + (f"?{query}" if (query := _query(pattern)) else "")


def _query(uri: str) -> str:
    """The parameters of a URI, such as region=eu-west-1. A question mark can also be part of a glob."""
    query = uri.partition("?")[2]
    return query if "=" in query else ""
