"""PhraseBank: phrases and their embeddings, opened read-only and searched."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from cellular.bank.index import open_index
from cellular.bank.manifest import (
    EMBEDDINGS,
    INDEX,
    LISTS,
    MANIFEST,
    PHRASES,
    SOURCES,
    Manifest,
    check_sizes,
    check_sum,
    current_version,
    damaged,
    read_manifest,
    version_folder,
)
from cellular.bank.search import Searcher, exact_search, map_embeddings, stored_view
from cellular.checks import check_embeddings
from cellular.errors import CellularError
from cellular.types import FloatArray, IntArray

BATCH = 4  # queries from which a matrix product beats one scan each


class SearchResult(NamedTuple):
    """Hits of N queries, best first."""

    scores: FloatArray  # (N, k) cosines; -inf where fewer than k were found
    ids: IntArray  # (N, k); -1 where fewer than k were found


@dataclass(frozen=True, slots=True)
class PhraseRecord:
    """A phrase and where it occurs first."""

    id: int
    phrase: str
    count: int
    source: str  # URI
    row: int  # record in the source
    position: int  # phrase number in the record


class PhraseBank:
    """One version of a bank: memory-mapped, so that processes on a machine share its pages.

    Safe for several threads; pickles as its path and version.
    """

    def __init__(self, path: Path, version: str, manifest: Manifest) -> None:
        """Use `PhraseBank.open`, which also checks the files."""
        folder = version_folder(path, version)
        self.path = path
        self.version = version
        self.manifest = manifest
        self.dimension = manifest.dimension
        self.fingerprint = manifest.teacher.fingerprint
        self.version_id = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
        self.matrix = _read(map_embeddings, folder / EMBEDDINGS)
        self._batches = _read(_map_batches, folder / PHRASES)
        self._starts = [0, *accumulate(batch.num_rows for batch in self._batches)]
        if not (self.matrix.shape == (len(self), self.dimension) and self._starts[-1] == len(self)):
            raise damaged(folder, "has files that disagree in their number of phrases")
        self._texts = [_utf8(batch.column(0)) for batch in self._batches]
        self._counts = [batch.column(1).to_numpy() for batch in self._batches]
        self._view = stored_view(self.matrix)
        self._searcher = self._open_searcher(folder)

    @classmethod
    def open(cls, path: Path | str, *, version: str | None = None) -> "PhraseBank":
        """Open a bank for reading.

        Args:
            path: the bank's folder.
            version: a version's name; None: the current one.

        Raises:
            CellularError: no bank there, or a file that is missing or damaged.
        """
        path = Path(path)
        version = version or current_version(path)
        if version is None:
            raise CellularError(f"no phrase bank in {path}: make one with `cellular bank build`")
        folder = version_folder(path, version)
        if not folder.is_dir():
            raise CellularError(f"{path} has no version {version}: see `cellular bank info {path}`")
        manifest = read_manifest(folder)
        check_sizes(folder, manifest)
        for name in (INDEX, LISTS):  # FAISS trusts what it reads
            if name in manifest.files:
                check_sum(folder, manifest, name)
        return cls(path, version, manifest)

    def __len__(self) -> int:
        return self.manifest.phrases

    def __repr__(self) -> str:
        return f"PhraseBank({str(self.path)!r}, version={self.version!r}, phrases={len(self)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.version)

    def check_teacher(self, fingerprint: str) -> None:
        """Refuse vectors of another embedding space.

        Raises:
            CellularError: the fingerprint differs from the bank's; names both.
        """
        if fingerprint != self.fingerprint:
            raise CellularError(
                f"the bank in {self.path} holds embeddings of {self.fingerprint}, not of {fingerprint}: "
                f"use the teacher {self.manifest.teacher.name} or build a bank with the other one"
            )

    def search(self, embeddings: ArrayLike, k: int = 10, *, effort: int | None = None) -> SearchResult:
        """The k phrases nearest to each embedding, approximately where the bank has an index.

        Args:
            embeddings: (N, D) or (D,), floating point; any length, only the direction counts.
            k: hits a query.
            effort: nprobe of an inverted file, efSearch of a graph; None: the bank's calibrated default.

        Raises:
            ValueError: wrong shape or dtype, NaN, infinity or a zero vector, k or effort below 1.
        """
        if k < 1 or (effort is not None and effort < 1):
            raise ValueError(f"k and effort must be at least 1, not {k} and {effort}")
        return self.nearest(check_embeddings(embeddings, self.dimension), k, effort)

    def nearest(self, queries: FloatArray, k: int, effort: int | None = None) -> SearchResult:
        """As `search`, for queries that are known to be (N, D) float32 of unit length: nothing is checked."""
        calibrated = self.manifest.index.effort
        if self._searcher is None or calibrated is None:
            return self._compare_all(queries, k)
        return _result(*self._searcher.search(queries, k, effort or calibrated, self._candidates(k)))

    def exact_search(self, embeddings: ArrayLike, k: int = 10) -> SearchResult:
        """As `search`, by comparing with every phrase."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        return self._compare_all(check_embeddings(embeddings, self.dimension), k)

    def _compare_all(self, queries: FloatArray, k: int) -> SearchResult:
        if len(queries) < BATCH:
            return _result(*self._view.search(queries, k))
        return _result(*exact_search(self.matrix, queries, k))

    def phrase(self, id: int) -> str:
        """The phrase of an id.

        Raises:
            IndexError: no such id.
        """
        shard, row = self._place(id)
        offsets, data = self._texts[shard]
        return str(data[offsets[row] : offsets[row + 1]], "utf-8")

    def phrases(self, ids: Iterable[int]) -> list[str]:
        """The phrases of ids, in their order."""
        return [self.phrase(id) for id in ids]

    def counts(self, ids: Iterable[int]) -> IntArray:
        """How often each phrase occurred in the corpus, int64."""
        places = map(self._place, ids)
        return np.fromiter((self._counts[shard][row] for shard, row in places), np.int64)

    def count_column(self) -> IntArray:
        """How often each phrase occurred, (N,) int64."""
        return np.concatenate(self._counts).astype(np.int64)

    def records(self, ids: Iterable[int]) -> list[PhraseRecord]:
        """The phrases of ids with their counts and first places."""
        return list(self._records(ids))

    def embeddings(self, ids: ArrayLike) -> FloatArray:
        """The stored embeddings of n ids, (n, D) float32, of unit length to the stored precision."""
        rows: FloatArray = self.matrix[np.asarray(ids, np.int64)].astype(np.float32)
        return rows

    def _records(self, ids: Iterable[int]) -> Iterator[PhraseRecord]:
        for id in ids:
            shard, place = self._place(id)
            phrase, count, source, row, position = (
                column[place].as_py() for column in self._batches[shard].columns
            )
            yield PhraseRecord(int(id), phrase, count, self._sources[source].as_py(), row, position)

    def _place(self, id: int) -> tuple[int, int]:
        if not 0 <= id < self._starts[-1]:
            raise IndexError(f"phrase ids go from 0 to {len(self) - 1}, {id} is none")
        shard = bisect_right(self._starts, id) - 1
        return shard, int(id) - self._starts[shard]

    def _candidates(self, k: int) -> int:
        calibrated = self.manifest.index.candidates or 0  # for 10 hits; deeper ones need fewer each
        return max(calibrated, min(calibrated * k // 10, 8 * k))

    def _open_searcher(self, folder: Path) -> Searcher | None:
        if self.manifest.index.effort is None:
            return None
        index = _read(open_index, folder / INDEX)
        if (index.ntotal, index.d) != self.matrix.shape:
            raise damaged(folder / INDEX, "does not index the stored embeddings")
        return Searcher(index, self.matrix)

    @cached_property
    def _sources(self) -> pa.ChunkedArray:
        path = version_folder(self.path, self.version) / SOURCES
        return _read(pq.read_table, path)["uri"]


def _result(scores: FloatArray, ids: IntArray) -> SearchResult:
    if len(ids) != 1 or scores.item(0) > 1 or ids.item(-1) < 0:  # one query pays for no array arithmetic
        np.minimum(
            scores, 1, out=scores
        )  # rounding to float16 lengthens some vectors by parts in ten thousand
        scores[ids < 0] = -np.inf
    return SearchResult(scores, ids)


def _map_batches(path: Path) -> list[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def _utf8(texts: pa.StringArray) -> tuple[NDArray[np.int32], memoryview]:
    """Offsets and bytes of a column: a phrase read from them is a third of the time of an Arrow scalar."""
    _, offsets, data = texts.buffers()
    return np.frombuffer(offsets, np.int32)[texts.offset :], memoryview(data or b"")


def _read(read: Any, path: Path) -> Any:
    try:
        return read(path)
    except (pa.ArrowException, OSError, RuntimeError, ValueError, IndexError) as error:
        raise damaged(path, "cannot be read") from error


def _reopen(path: Path, version: str) -> PhraseBank:
    return PhraseBank.open(path, version=version)
