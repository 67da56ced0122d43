"""Clients that never pause, and what became of their requests."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Return once the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


class Load:
    """Clients that send a request as soon as they know what became of the last one.

    Args:
        send: makes one request, and returns what counts as its answer.
        clients: how many.

    Attributes:
        answers: of requests that succeeded.
        failures: errors of the others.
    """

    def __init__(self, send: Callable[[], Any], clients: int = 6) -> None:
        self.answers: list[Any] = []
        self.failures: list[Exception] = []
        self._send = send
        self._clients = clients
        self._since: dict[int, float] = {}
        self._stopped = threading.Event()

    def more(self, number: int) -> None:
        """Wait for so many more answers."""
        enough = len(self.answers) + number
        wait_until(lambda: len(self.answers) >= enough)

    def stuck(self) -> int:
        """How many clients have waited longer than an answer should take."""
        return sum(time.monotonic() - since > 0.5 for since in [*self._since.values()])

    @contextmanager
    def running(self) -> Iterator[None]:
        """From the first answer on, while the block runs; then until the last."""
        threads = [threading.Thread(target=self._client) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        try:
            self.more(1)
            yield
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _client(self) -> None:
        while not self._stopped.is_set():
            self._since[threading.get_ident()] = time.monotonic()
            try:
                self.answers.append(self._send())
            except httpx.HTTPError as error:
                self.failures.append(error)
