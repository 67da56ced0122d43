"""Embeddings of texts, kept on disk so that no text is embedded twice."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from weakref import WeakValueDictionary
from zlib import crc32

import lmdb
import numpy as np

from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.teachers import Teacher, check_texts, load_teacher
from cellular.types import FloatArray

if TYPE_CHECKING:
    from lmdb import _Database

_SMALLEST_CACHE = 1 << 20
_DAMAGED = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)


class CacheStatistics(NamedTuple):
    """Texts since the loader was made."""

    hits: int
    """answered without the teacher: from the cache, or a repetition within a call"""
    misses: int
    """embedded by the teacher"""


class EmbeddingLoader:
    """A teacher that remembers: (N, D) float32 of unit length, from the cache or from the teacher.

    The cache holds float32 bit for bit. Threads and processes of one machine may share its folder, which must
    not be on a network file system. An entry belongs to one teacher, one precision and one text.

    Args:
        teacher: A teacher, or the configuration or name of one.
        cache_dir: Folder of the cache; None: nothing is kept.
        cache_bytes: Bound of the cache's file. Full, it drops what was used least recently, by halves.

    Raises:
        CellularError: the teacher cannot be loaded, or the folder cannot be used.
    """

    def __init__(
        self,
        teacher: Teacher | TeacherConfig | str = "all-MiniLM-L6-v2",
        cache_dir: Path | None = None,
        cache_bytes: int = 2 << 30,
    ) -> None:
        if cache_bytes < _SMALLEST_CACHE:
            raise ValueError(f"cache_bytes is {cache_bytes}; at least {_SMALLEST_CACHE} are needed")
        self.teacher = load_teacher(teacher) if isinstance(teacher, TeacherConfig | str) else teacher
        self.name = self.teacher.name
        self.dimension = self.teacher.dimension
        self.fingerprint = self.teacher.fingerprint
        self._cache_dir = None if cache_dir is None else Path(cache_dir).resolve()
        self._cache_bytes = cache_bytes
        self._cache: _Cache | None = None
        self._statistics = CacheStatistics(0, 0)
        self._lock = threading.Lock()

    @property
    def statistics(self) -> CacheStatistics:
        """Hits and misses of this object."""
        return self._statistics

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts in their order, equal ones once: (N, D) float32 of unit length.

        Raises:
            ValueError: `texts` is one string, or holds something that is not text.
            CellularError: the cache is damaged or cannot be written.
        """
        unique = list(dict.fromkeys(check_texts(texts)))
        vectors = np.empty((len(unique), self.dimension), np.float32)
        missing = self._fill(unique, vectors)
        with self._lock:
            hits, misses = self._statistics
            self._statistics = CacheStatistics(hits + len(texts) - missing, misses + missing)
        if len(unique) == len(texts):
            return vectors
        row_of = {text: row for row, text in enumerate(unique)}
        return vectors[[row_of[text] for text in texts]]

    def close(self) -> None:
        """Let go of the cache; a later `encode` opens it again."""
        self._cache = None

    def __enter__(self) -> "EmbeddingLoader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["EmbeddingLoader"], tuple[Teacher, Path | None, int]]:
        return EmbeddingLoader, (self.teacher, self._cache_dir, self._cache_bytes)

    def _fill(self, texts: list[str], vectors: FloatArray) -> int:
        """Write the vector of each text; how many of them the teacher had to embed."""
        if self._cache_dir is None:
            vectors[:] = self.teacher.encode(texts)
            return len(texts)
        with _reported(self._cache_dir):
            cache = self._open(self._cache_dir)
            keys = self._keys(texts)
            missing = cache.read(keys, vectors)
        if missing:
            vectors[missing] = self.teacher.encode([texts[row] for row in missing])
            with _reported(self._cache_dir):
                cache.write({keys[row]: vectors[row] for row in missing})
        return len(missing)

    def _open(self, folder: Path) -> "_Cache":
        if self._cache is None or self._cache.process != os.getpid():
            self._cache = _Cache.open(folder, self._cache_bytes)
        return self._cache

    def _keys(self, texts: list[str]) -> list[bytes]:
        # Vectors of two precisions can be compared, but a cache must not give one for the other.
        space = f"{self.fingerprint}\0{getattr(self.teacher, 'precision', 'fp32')}\0".encode()
        return [blake2b(space + text.encode(), digest_size=16).digest() for text in texts]


class _Cache:
    """Two generations in one LMDB file: the young one takes all writes; full, it becomes the old one.

    What the former old generation held is dropped; a hit in the old one is copied to the young one. A writer
    that is killed leaves the state before its transaction.
    """

    _opened: ClassVar["WeakValueDictionary[tuple[int, Path], _Cache]"] = WeakValueDictionary()
    _opening = threading.Lock()

    def __init__(self, folder: Path, size: int) -> None:
        self.process = os.getpid()  # LMDB forbids the use of an environment after fork
        folder.mkdir(parents=True, exist_ok=True)
        # Without metasync a power cut may lose the last transaction, never the file.
        self._environment = lmdb.open(str(folder), map_size=size, max_dbs=2, metasync=False, max_readers=1024)
        page = self._environment.stat()["psize"]
        if (self._environment.info()["last_pgno"] + 1) * page > (folder / "data.mdb").stat().st_size:
            raise lmdb.CorruptedError("the file is shorter than its pages")  # reading on would be a SIGBUS
        self._environment.reader_check()  # killed readers would keep dropped pages from reuse
        self._generations = {name: self._environment.open_db(name) for name in (b"a", b"b")}
        self._generation_pages = int(0.4 * size / page)  # the rest is for pages that a transaction copies
        self._rows = max(1, size >> 18)  # in one transaction, each of which may copy a page or two

    @classmethod
    def open(cls, folder: Path, size: int) -> "_Cache":
        """The cache of a folder: one object a process, as LMDB demands."""
        with cls._opening:
            for (process, _), inherited in list(cls._opened.items()):
                if process != os.getpid():  # of the parent, before a fork
                    inherited._environment.close()
            key = (os.getpid(), folder)
            cache = cls._opened.get(key)
            if cache is None:
                cache = cls._opened[key] = cls(folder, size)
            return cache

    def read(self, keys: list[bytes], vectors: FloatArray) -> list[int]:
        """Fill the rows of the keys that are there; the rows of those that are not."""
        aged: dict[bytes, FloatArray] = {}
        missing = []
        with self._environment.begin(buffers=True) as transaction:
            young, old = self._young_and_old(transaction)
            for row, key in enumerate(keys):
                if _unpack(transaction.get(key, db=young), vectors[row]):
                    continue
                if _unpack(transaction.get(key, db=old), vectors[row]):
                    aged[key] = vectors[row]
                else:
                    missing.append(row)
        self.write(aged)
        return missing

    def write(self, rows: dict[bytes, FloatArray]) -> None:
        """Add vectors, a bounded number in each transaction."""
        items = iter(sorted(rows.items(), key=lambda item: item[0]))
        while chunk := list(islice(items, self._rows)):
            with self._environment.begin(write=True) as transaction:
                young = self._room(transaction)
                for key, vector in chunk:
                    data = vector.tobytes()
                    transaction.put(key, crc32(data).to_bytes(4, "little") + data, db=young)

    def _room(self, transaction: lmdb.Transaction) -> "_Database":
        """The generation to write to, after a change of generations if the young one is full."""
        young, old = self._young_and_old(transaction)
        state = transaction.stat(young)
        if state["branch_pages"] + state["leaf_pages"] + state["overflow_pages"] < self._generation_pages:
            return young
        transaction.drop(old, delete=False)
        transaction.put(b"young", b"a" if old is self._generations[b"a"] else b"b")
        return old

    def _young_and_old(self, transaction: lmdb.Transaction) -> tuple["_Database", "_Database"]:
        a, b = self._generations[b"a"], self._generations[b"b"]
        return (b, a) if transaction.get(b"young") == b"b" else (a, b)


def _unpack(value: memoryview | None, vector: FloatArray) -> bool:
    """Copy a stored vector; False where there is none or it is damaged."""
    if (
        value is None
        or len(value) != 4 + vector.nbytes
        or crc32(value[4:]) != int.from_bytes(value[:4], "little")
    ):
        return False
    vector[:] = np.frombuffer(value, np.float32, offset=4)
    return True


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Errors of the store as messages that say what to do."""
    try:
        yield
    except _DAMAGED as error:
        raise CellularError(
            f"the embedding cache {folder} is damaged ({error}); delete that folder"
        ) from error
    except (lmdb.Error, OSError) as error:
        raise CellularError(
            f"cannot use {folder} as embedding cache ({error}); choose another folder"
        ) from error
