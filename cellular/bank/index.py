"""The index of a bank: which one, trained on a sample, filled in parts, merged."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellular.bank.calibration import calibrate, sample_rows
from cellular.bank.faiss_library import faiss, merge_ondisk
from cellular.bank.manifest import EMBEDDINGS, INDEX, LISTS, IndexEntry
from cellular.bank.search import TILE_ROWS, Index, map_embeddings
from cellular.config import IndexConfig
from cellular.errors import CellularError
from cellular.types import FloatArray

FLAT_ROWS = 20_000  # up to here exact search takes about a millisecond
GRAPH_CENTROIDS = 1 << 16  # from here a graph finds the nearest centroids
ROWS_PER_CENTROID = 64  # k-means wants at least 39
_LARGE = ((100_000_000, 1 << 20), (11_000_000, 1 << 18), (3_000_000, 1 << 16))
_BASES = (faiss.IndexFlat, faiss.IndexHNSWFlat, faiss.IndexIVF)


def default_factory(rows: int, dimension: int) -> str:
    """The FAISS factory string that suits a bank of this size.

    Inverted lists of 4-bit product quantiser codes, one subquantiser for about four components, scanned in
    registers (André et al. 2017, Accelerated Nearest Neighbor Search with Quick ADC); about 4 √N lists.
    """
    if rows <= FLAT_ROWS:
        return "Flat"
    lists = next((n for bound, n in _LARGE if rows >= bound), 1 << round(np.log2(4 * np.sqrt(rows))))
    graph = "_HNSW32" if lists >= GRAPH_CENTROIDS else ""
    width = next(n for n in (4, 3, 5, 2, 1) if dimension % n == 0)
    return f"IVF{lists}{graph},PQ{dimension // width}x4fs"


def choose_factory(config: IndexConfig, rows: int, dimension: int) -> str:
    """The configured factory string, or the default one of this size.

    Raises:
        CellularError: FAISS cannot make the index, or there are too few phrases to train it.
    """
    factory = default_factory(rows, dimension) if config.factory == "auto" else config.factory
    index = check_factory(factory, dimension)
    needed = _least_training_rows(index)
    if rows < needed:
        raise CellularError(
            f"index {factory} needs at least {needed} phrases, there are {rows}: use `auto` or a smaller one"
        )
    return factory


def check_factory(factory: str, dimension: int) -> Index:
    """The empty index that a factory string describes.

    Raises:
        CellularError: FAISS cannot make it, or a bank cannot use it.
    """
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError:
        raise CellularError(
            f"index {factory!r} is not a FAISS factory string for dimension {dimension}: "
            "use auto, Flat, HNSW32, IVF1024,Flat, IVF1024,SQ8, IVF1024,PQ96x4fs or IVF1024,RaBitQ"
        ) from None
    if not isinstance(index, _BASES):
        raise CellularError(
            f"index {factory!r} cannot serve a bank: use auto, Flat, HNSW.. or IVF..; "
            "re-ranking on the stored embeddings is built in"
        )
    return index


def merges(factory: str) -> bool:
    """Whether parts of such an index can be filled on several machines and merged: inverted files can."""
    return factory.startswith("IVF")


def training_rows(factory: str, rows: int, config: IndexConfig) -> int:
    """How many of a bank's rows to sample for training."""
    lists = int(found[1]) if (found := re.match(r"IVF(\d+)", factory)) else 0
    wanted = config.training_rows or max(ROWS_PER_CENTROID * lists, FLAT_ROWS)
    return min(rows, wanted)


def train_index(factory: str, sample: FloatArray) -> Index:
    """An empty index, trained with FAISS's fixed seeds.

    Args:
        factory: FAISS factory string.
        sample: (n, D) float32 of unit length.
    """
    index = check_factory(factory, sample.shape[1])
    try:
        index.train(np.ascontiguousarray(sample, np.float32))
    except RuntimeError:
        raise CellularError(
            f"index {factory} cannot be trained on {len(sample)} phrases: use `auto` or a smaller one"
        ) from None
    return index


def add_rows(index: Index, embeddings: NDArray[Any], first_id: int) -> None:
    """Add (n, D) stored embeddings under the ids first_id, first_id + 1, …

    Only an inverted file takes ids out of sequence.
    """
    if not isinstance(index, faiss.IndexIVF) and first_id != index.ntotal:
        raise ValueError(f"this index must be filled in sequence: next id {index.ntotal}, not {first_id}")
    for start in range(0, len(embeddings), TILE_ROWS):
        tile = np.ascontiguousarray(embeddings[start : start + TILE_ROWS], np.float32)
        if isinstance(index, faiss.IndexIVF):
            index.add_with_ids(tile, np.arange(len(tile)) + first_id + start)
        else:
            index.add(tile)


def add_to_clone(trained: Index, embeddings: NDArray[Any], first_id: int) -> Index:
    """A copy of a trained index with (n, D) embeddings added; the index itself stays as it is."""
    clone = faiss.clone_index(trained)
    add_rows(clone, embeddings, first_id)
    return clone


def write_index(index: Index, path: Path) -> None:
    """Write an index to a file."""
    faiss.write_index(index, str(path))


def read_index(path: Path) -> Index:
    """Read an index to add to it or to merge it."""
    return faiss.read_index(str(path))


def open_index(path: Path) -> Index:
    """Map an index read-only, for search; inverted lists that were merged on disk lie beside it."""
    if (path.parent / LISTS).exists():
        return faiss.read_index(str(path), faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR)
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def merge_indexes(trained: Path, parts: Sequence[Path], path: Path, memory_bytes: int = 4 << 30) -> None:
    """Join the parts of one inverted file, each a clone of the trained index with rows of its own.

    Args:
        trained: the empty index.
        parts: files of the filled clones.
        path: the index to write. Above `memory_bytes` of parts, lists that can be mapped (all but those
            scanned in registers, which are small) are joined on disk, in a second file beside it.
        memory_bytes: how much to hold in memory.
    """
    merged = read_index(trained)
    mappable = isinstance(faiss.downcast_InvertedLists(merged.invlists), faiss.ArrayInvertedLists)
    if mappable and sum(part.stat().st_size for part in parts) > memory_bytes:
        merge_ondisk(merged, [str(part) for part in parts], str(path.parent / LISTS))
    else:
        for part in parts:
            merged.merge_from(read_index(part), 0)
    write_index(merged, path)


def holds_each_once(index: Index, rows: int) -> bool:
    """Whether the ids of a filled index are 0 … rows - 1, each once."""
    if not isinstance(index, faiss.IndexIVF):
        return bool(index.ntotal == rows)  # ids are places
    seen = np.zeros(rows, bool)
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), size) if size else np.empty(0, np.int64)
        if ((ids < 0) | (ids >= rows)).any():
            return False
        seen[ids] = True
    return bool(index.ntotal == rows and seen.all())


def build_index(folder: Path, config: IndexConfig) -> IndexEntry:
    """Index the embeddings in a version's folder, in this process."""
    matrix = map_embeddings(folder / EMBEDDINGS)
    factory = choose_factory(config, *matrix.shape)
    if factory == "Flat":
        return IndexEntry()
    sample = sample_rows(len(matrix), training_rows(factory, len(matrix), config))
    index = train_index(factory, matrix[sample].astype(np.float32))
    add_rows(index, matrix, 0)
    write_index(index, folder / INDEX)
    return calibrate(index, matrix, factory, config.recall_target)


def _least_training_rows(index: Index) -> int:
    lists = index.nlist if isinstance(index, faiss.IndexIVF) else 1
    bits = index.pq.nbits if hasattr(index, "pq") else 0
    return max(lists, 1 << bits)
