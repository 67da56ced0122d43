"""Counts and percentiles in bounded memory."""

import threading

import pytest

from cellular.decoders.monitoring import STAGES, Monitor
from cellular.decoders.results import Answer

ANSWER = Answer("text", 1.0, "bank", None, (0,), [0], [1.0])


def test_percentiles_are_of_the_latest_durations() -> None:
    monitor = Monitor(window=100)
    for number in range(1000):
        monitor.time("search", number / 1e3)
    assert monitor.statistics()["milliseconds"]["search"] == pytest.approx(
        {"p50": 949.5, "p95": 994.05, "p99": 998.01}
    )


def test_switched_off_it_counts_but_keeps_no_durations() -> None:
    monitor = Monitor(timed=False)
    monitor.time("search", 1.0)
    monitor.count([ANSWER])
    statistics = monitor.statistics()
    assert statistics["milliseconds"] == {stage: {} for stage in STAGES}
    assert statistics["decoded"] == 1


def test_errors_are_a_share_of_what_was_decoded() -> None:
    monitor = Monitor()
    monitor.note_error("search failed", 1)
    monitor.count([ANSWER, ANSWER, ANSWER, ANSWER._replace(source="fallback", reason="search failed")])
    statistics = monitor.statistics()
    assert statistics["error_rate"] == 0.25
    assert statistics["fallback_reasons"] == {"search failed": 1}


def test_threads_lose_no_count() -> None:
    monitor = Monitor()
    work = [threading.Thread(target=lambda: [monitor.count([ANSWER]) for _ in range(2000)]) for _ in range(4)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert monitor.statistics()["decoded"] == 8000
