"""Measures how a bank is best decoded on this machine."""

import os
import time
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from cellular.bank import PhraseBank
from cellular.bank.calibration import exclude_self, recall, sample_rows
from cellular.config import DecodingConfig
from cellular.types import FloatArray, IntArray

QUERIES = 500
TIMED_QUERIES = 100
MEMORY_SHARE = 0.01  # of the machine's memory, for cached answers
ANSWER_BYTES = 1500  # of Python objects, beside the embedding itself
WORTH_A_THREAD = 0.8  # of the time with fewer threads


@dataclass(frozen=True, slots=True)
class TuningReport:
    """What was measured and chosen.

    Attributes:
        search_effort: the least that reaches the configured recall; None where search is exact.
        recall: recall@10 at that effort, on the bank's own rows, each without itself.
        threads: of FAISS and BLAS for one search.
        milliseconds: median of one search with all this.
        cache_size: answers that fit the share of memory allowed for them.
    """

    search_effort: int | None
    recall: float
    threads: int
    milliseconds: float
    cache_size: int


def tune(bank: PhraseBank, config: DecodingConfig) -> TuningReport:
    """Choose settings for this bank on this machine, and set this process' threads."""
    own = sample_rows(len(bank), QUERIES)
    effort, reached = least_effort(bank, own, config.recall_target)
    threads, seconds = best_threads(bank, bank.embeddings(own[:TIMED_QUERIES]), config.top_k, effort)
    threadpool_limits(threads)
    return TuningReport(effort, round(reached, 4), threads, round(seconds * 1e3, 4), cache_size(bank))


def least_effort(bank: PhraseBank, own: IntArray, target: float) -> tuple[int | None, float]:
    """The least effort that reaches the target recall@10, or else the most that was tried; and its recall."""
    default = bank.manifest.index.effort
    if default is None:
        return None, 1.0
    queries, k = bank.embeddings(own), min(10, len(bank) - 1)
    exact, _ = exclude_self(*bank.exact_search(queries, k + 1), own, k)
    effort, reached = default, 0.0
    for effort in dict.fromkeys(max(1, default * step // 8) for step in (1, 2, 4, 6, 8, 12, 16, 32, 64)):
        found, _ = exclude_self(*bank.search(queries, k + 1, effort=effort), own, k)
        if (reached := recall(found, exact)) >= target:
            break
    return effort, reached


def best_threads(bank: PhraseBank, queries: FloatArray, k: int, effort: int | None) -> tuple[int, float]:
    """How many threads make one search fastest, and its median in seconds; more only where they pay."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    best = (1, np.inf)
    for threads in (1 << power for power in range(available.bit_length())):
        with threadpool_limits(threads):
            seconds = median_seconds(bank, queries, k, effort)
        if seconds < best[1] * WORTH_A_THREAD:
            best = (threads, seconds)
    return best


def median_seconds(bank: PhraseBank, queries: FloatArray, k: int, effort: int | None) -> float:
    """Of searches one by one."""
    seconds = []
    for query in queries:
        started = time.perf_counter()
        bank.search(query, k, effort=effort)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def cache_size(bank: PhraseBank) -> int:
    """Answers that fit MEMORY_SHARE of the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    entry = bank.dimension * 5 + ANSWER_BYTES  # float32 embedding and int8 key
    return max(1000, int(memory * MEMORY_SHARE / entry))
