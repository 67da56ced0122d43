"""Search over the stored embeddings: exact, or by an index whose hits are re-ranked on them."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellular.bank.faiss_library import faiss
from cellular.types import FloatArray, IntArray

Index = Any
TILE_ROWS = 2048  # 3 MB of float32 at D = 384
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
    """The k best of each query among all rows, by float32 matrix products of tiles that stay in the cache.

    For batches: a few queries are faster by a scan of `stored_view`. Torch, because it widens float16 and
    multiplies nearly twice as fast as NumPy.

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
        found, places = _scan(matrix, queries[block], min(k, len(matrix)))
        order = np.lexsort((places, -found), axis=1)  # equal scores by id
        scores[block, : order.shape[1]] = np.take_along_axis(found, order, 1)
        ids[block, : order.shape[1]] = np.take_along_axis(places, order, 1)
    return scores, ids


def _scan(matrix: NDArray[Any], queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    import torch  # a second or more: only where batches are searched exactly

    stored = np.empty((min(TILE_ROWS, len(matrix)), matrix.shape[1]), matrix.dtype)
    wide = torch.empty(stored.shape)
    asked = torch.from_numpy(np.array(queries))
    scores, ids = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(matrix), TILE_ROWS):
        rows = min(TILE_ROWS, len(matrix) - start)
        stored[:rows] = matrix[start : start + rows]  # torch takes no read-only memory
        tile = wide[:rows].copy_(torch.from_numpy(stored[:rows]))
        best = (asked @ tile.T).topk(min(k, rows))
        scores, ids = torch.cat([scores, best.values], 1), torch.cat([ids, best.indices + start], 1)
        if scores.shape[1] > k:
            scores, kept = scores.topk(k)
            ids = ids.gather(1, kept)
    return scores.numpy(), ids.numpy()
