"""Training data on its way to a worker: held whole where it fits, else block by block in the background."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import pyarrow as pa


class Block(Protocol):
    """Rows of training data in memory."""

    @property
    def bytes(self) -> int:
        """What they occupy."""


B = TypeVar("B", bound=Block)


class Feed(Generic[B]):
    """Blocks of training data, at most two of which are held at a time.

    A worker never waits: while the next block is not there, it goes on with the one it has. That also keeps
    workers from waiting for each other, since a pass over a split dataset begins when all have ended theirs.

    Args:
        epoch: starts one pass over this worker's share of the data.
        budget: bytes held. A share that fits is read once.
        read: the rows of a table.
        join: several lots of rows as one.

    Raises:
        ValueError: the share is empty.
    """

    def __init__(
        self,
        epoch: Callable[[], Iterable[pa.Table]],
        budget: int,
        read: Callable[[pa.Table], B],
        join: Callable[[Sequence[B]], B],
    ) -> None:
        self._epoch, self._bytes, self._read, self._join = epoch, budget // 2, read, join
        self._queue: queue.Queue[B] = queue.Queue(maxsize=1)
        blocks = self._blocks()
        first, second = next(blocks, None), next(blocks, None)
        if first is None:
            raise ValueError("no training data for this worker")
        self.first = first
        if second is not None:
            arguments = (second, blocks)
            threading.Thread(target=self._read_on, args=arguments, daemon=True).start()

    def next(self) -> B | None:
        """The next block, None if it is not there yet, or the first is all there is."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _blocks(self) -> Iterator[B]:
        parts: list[B] = []
        for table in self._epoch():
            parts.append(self._read(table))
            if sum(part.bytes for part in parts) > self._bytes:
                yield self._join(parts)
                parts = []
        if parts:
            yield self._join(parts)

    def _read_on(self, block: B, blocks: Iterator[B]) -> None:
        self._queue.put(block)
        while True:
            for block in blocks:
                self._queue.put(block)
            blocks = self._blocks()
