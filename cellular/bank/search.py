"""Search over the stored embeddings: exact, or by an index whose hits are re-ranked on them."""

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellular.types import FloatArray, IntArray

faiss: Any = import_module("faiss")  # its type stubs lag behind its classes
Index = Any
TILE_ROWS = 4096  # 6 MB of float32 at D = 384
QUERY_ROWS = 1024


def map_embeddings(path: Path) -> NDArray[Any]:
    """The (N, D) float16 or float32 array in an embeddings.arrow: a read-only view of the mapped file."""
    with pa.memory_map(str(path)) as source:
        column = pa.ipc.open_file(source).get_batch(0).column(0)
    values = column.flatten().to_numpy(zero_copy_only=True)
    matrix: NDArray[Any] = values.reshape(len(column), column.type.list_size)
    return matrix


def stored_view(matrix: NDArray[Any]) -> Index:
    """A FAISS index whose codes are the memory of a (N, D) array: nothing is copied.

    The caller keeps the array alive as long as the index.
    """
    rows, dimension = matrix.shape
    if matrix.dtype == np.float16:
        kind = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexFlatIP(dimension)
    pointer = faiss.swig_ptr(matrix.reshape(-1).view(np.uint8))
    codes = index.codes
    codes.is_owned = False
    codes.view_data = codes.c_ptr = pointer
    codes.view_size = codes.c_size = matrix.nbytes
    index.ntotal = rows
    return index


class Searcher:
    """Approximate search: the index proposes candidates, the stored vectors rank them.

    Safe for several threads: each call carries its own parameters.
    """

    def __init__(self, index: Index, matrix: NDArray[Any]) -> None:
        self._matrix = matrix  # the view reads it
        self._view = stored_view(matrix)
        self._index = index
        self._refine = faiss.IndexRefine(index, self._view)
        self._parameters = lru_cache(maxsize=64)(self._make_parameters)

    def search(
        self, queries: FloatArray, k: int, effort: int, candidates: int
    ) -> tuple[FloatArray, IntArray]:
        """The k best of each query.

        Args:
            queries: (N, D) float32 of unit length.
            k: hits a query.
            effort: nprobe of an inverted file, efSearch of a graph.
            candidates: hits of the index that are re-ranked, at least k.

        Returns:
            (N, k) cosines and (N, k) ids, best first; id -1 where fewer were found.
        """
        parameters = self._parameters(effort, max(candidates, k) / k)
        scores, ids = self._refine.search(queries, k, params=parameters)
        return scores, ids

    def _make_parameters(self, effort: int, k_factor: float) -> Any:
        if isinstance(self._index, faiss.IndexIVF):
            base = faiss.SearchParametersIVF(nprobe=effort)
        else:
            base = faiss.SearchParametersHNSW(efSearch=effort)
        return faiss.IndexRefineSearchParameters(k_factor=k_factor, base_index_params=base)


def exact_search(matrix: NDArray[Any], queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """The k best of each query among all rows, by matrix products of a tile that stays in the cache.

    Args:
        matrix: (N, D) float16 or float32.
        queries: (n, D) float32.
        k: hits a query.

    Returns:
        (n, k) inner products and (n, k) ids, best first; -inf and -1 where k exceeds N.
    """
    scores = np.full((len(queries), k), -np.inf, np.float32)
    ids = np.full((len(queries), k), -1, np.int64)
    for first in range(0, len(queries), QUERY_ROWS):
        block = slice(first, first + QUERY_ROWS)
        scores[block], ids[block] = _scan(matrix, queries[block], scores[block], ids[block])
    return scores, ids


def _scan(
    matrix: NDArray[Any], queries: FloatArray, scores: FloatArray, ids: IntArray
) -> tuple[FloatArray, IntArray]:
    k = scores.shape[1]
    buffer = np.empty((min(TILE_ROWS, len(matrix)), matrix.shape[1]), np.float32)
    for start in range(0, len(matrix), TILE_ROWS):
        tile = buffer[: len(matrix) - start]
        tile[:] = matrix[start : start + TILE_ROWS]
        products = queries @ tile.T
        rows = np.broadcast_to(np.arange(start, start + len(tile)), products.shape)
        better, places = _best(products, rows, k)
        scores, ids = _best(np.hstack([scores, better]), np.hstack([ids, places]), k)
    order = np.lexsort((ids, -scores), axis=1)  # equal scores by id, whatever the tiles were
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


def _best(scores: FloatArray, ids: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    if scores.shape[1] <= k:
        return scores, ids
    kept = np.argpartition(scores, -k, axis=1)[:, -k:]
    return np.take_along_axis(scores, kept, 1), np.take_along_axis(ids, kept, 1)
