"""Recall of approximate search, and the least effort that reaches a target."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellular.bank.faiss_library import faiss
from cellular.bank.manifest import IndexEntry
from cellular.bank.search import Index, Searcher, exact_search
from cellular.types import FloatArray, IntArray

QUERIES = 1000
MOST_CANDIDATES = 320
_EFFORTS = tuple(n for power in range(3, 12) for n in (1 << power, 3 << (power - 1)))  # 8, 12, 16, 24, … 3072
_TIE = 1e-5  # cosines that differ by less are the same hit


def sample_rows(rows: int, sample: int, seed: int = 1) -> IntArray:
    """Different row numbers, sorted; the same for the same arguments."""
    return np.sort(np.random.default_rng(seed).choice(rows, min(rows, sample), replace=False))


def exclude_self(scores: FloatArray, ids: IntArray, own: IntArray, k: int) -> tuple[FloatArray, IntArray]:
    """Drop each query's own id from its (N, k + 1) hits, or the last one: leave-one-out, (N, k) each."""
    is_self = ids == own[:, np.newaxis]
    is_self[~is_self.any(axis=1), -1] = True
    return scores[~is_self].reshape(len(own), k), ids[~is_self].reshape(len(own), k)


def recall(found: FloatArray, exact: FloatArray) -> float:
    """Share of the exact (N, k) hits' scores that the found ones reach; equal scores are equally right."""
    return 1.0 if exact.size == 0 else float(np.mean(found >= exact[:, -1:] - _TIE))


def calibrate(index: Index, matrix: NDArray[Any], factory: str, target: float) -> IndexEntry:
    """Find the default effort: the least at which recall@10 on stored vectors reaches the target.

    The queries are rows of the bank, each without itself among the hits, which is what an unseen vector of
    the same kind would meet. By number of distances, not by time: the same bank gives the same answer.

    Args:
        index: a filled index.
        matrix: the (N, D) embeddings it holds.
        factory: its name in the manifest.
        target: recall@10 to reach.
    """
    own = sample_rows(len(matrix), QUERIES, seed=2)
    queries = matrix[own].astype(np.float32)
    k = min(10, len(matrix) - 1)
    exact, _ = exclude_self(*exact_search(matrix, queries, k + 1), own, k)
    searcher = Searcher(index, matrix)

    def measure(effort: int, candidates: int) -> float:
        found, _ = exclude_self(*searcher.search(queries, k + 1, effort, candidates), own, k)
        return recall(found, exact)

    limit = index.nlist if isinstance(index, faiss.IndexIVF) else len(matrix)
    efforts = [effort for effort in _EFFORTS if effort <= limit] or [limit]
    reached, effort = 0.0, efforts[-1]
    for effort in efforts:
        if (reached := measure(effort, MOST_CANDIDATES)) >= target:
            break
    candidates = MOST_CANDIDATES
    while candidates > 10 and (less := measure(effort, candidates // 2)) >= target:
        candidates, reached = candidates // 2, less
    warning = None if reached >= target else f"recall@10 is {reached:.3f}, below the target {target:.3f}"
    return IndexEntry(
        factory=factory, effort=effort, candidates=candidates, recall=round(reached, 4), warning=warning
    )
