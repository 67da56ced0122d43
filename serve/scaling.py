"""How many replicas a stage should have: by the time that it works, and not by the calls that it has in hand.

A Gateway joins what waits into calls, so that a stage which never rests may have no more than one call in
hand; and a call of a millisecond's work is in hand for the five that it travels. What a replica is busy tells
both apart.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class BusyTime:
    """How much work one replica does; works at the same time add up. For one thread."""

    def __init__(self) -> None:
        self._begun = self._seen = time.perf_counter()
        self._seconds = 0.0
        self._works = 0

    @contextmanager
    def work(self) -> Iterator[None]:
        """The block is work."""
        self._pass()
        self._works += 1
        try:
            yield
        finally:
            self._pass()
            self._works -= 1

    def load(self) -> float:
        """Works at a time, on average since the last call of this; 1: it never rested."""
        now = self._pass()
        load = self._seconds / max(now - self._begun, 1e-9)
        self._begun, self._seconds = now, 0.0
        return load

    def _pass(self) -> float:
        now = time.perf_counter()
        self._seconds += self._works * (now - self._seen)
        self._seen = now
        return now


class ByLoad:
    """Ray Serve's autoscaling policy of a stage; serve/config.yaml names it.

    Ray Serve sends this class to its controller by value, where the package may be missing: it may use the
    standard library alone.

    Args:
        busy: share of the time that a replica should work; beyond it there are more, below it fewer.
    """

    def __init__(self, busy: float = 0.7) -> None:
        self.busy = busy

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """Replicas for what is done now, and for the calls in hand if these ask for more.

        Args:
            context: Ray Serve's; the replicas' `load` is a mean over look_back_period_s.
        """
        loads = (context.aggregated_metrics or {}).get("load", {})
        calls = context.total_num_requests / context.config.get_target_ongoing_requests()
        return max(sum(loads.values()) / self.busy, calls), {}
