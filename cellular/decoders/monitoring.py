"""Latency percentiles by stage and counts of answers, in bounded memory."""

import threading
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from cellular.decoders.results import Answer

STAGES = ("cache", "search", "assemble", "postprocess")


class Monitor:
    """Counts every answer; with `timed`, also keeps the latest durations of each stage.

    One duration is one call of a stage, whatever the number of rows in it.
    """

    def __init__(self, timed: bool = True, window: int = 4096) -> None:
        kept = window if timed else 0
        self._windows = {stage: deque[float](maxlen=kept) for stage in STAGES}
        self._sources: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._errors = 0
        self.last_error: str | None = None
        self._lock = threading.Lock()

    def time(self, stage: str, seconds: float) -> None:
        """Note what one call of a stage took."""
        self._windows[stage].append(seconds)  # atomic

    def count(self, answers: Sequence[Answer]) -> None:
        """Note where answers came from, and why the others fell back."""
        with self._lock:
            for answer in answers:
                self._sources[answer.source] += 1
                if answer.reason:
                    self._reasons[answer.reason] += 1

    def note_error(self, message: str, rows: int) -> None:
        """Note an error and how many rows it left without an answer."""
        with self._lock:
            self.last_error = message
            self._errors += rows

    def statistics(self) -> dict[str, object]:
        """Counts, the share of rows that an error touched, and percentiles in milliseconds."""
        with self._lock:
            sources, reasons, errors = dict(self._sources), dict(self._reasons), self._errors
        decoded = sum(sources.values())
        return {
            "decoded": decoded,
            "sources": sources,
            "fallback_reasons": reasons,
            "errors": errors,
            "error_rate": errors / decoded if decoded else 0.0,
            "milliseconds": {name: percentiles(list(window)) for name, window in self._windows.items()},
        }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds; empty where nothing was timed."""
    if not seconds:
        return {}
    values = np.percentile(seconds, (50, 95, 99)) * 1e3
    return dict(zip(("p50", "p95", "p99"), values.round(4).tolist(), strict=True))
