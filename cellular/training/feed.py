"""Training data on its way to a worker: held whole where it fits, else block by block in the background."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from cellular.training.buckets import Texts, join_texts, texts_of


class Feed:
    """Blocks of texts, at most two of which are held at a time.

    A worker never waits: while the next block is not there, it goes on with the one it has. That also keeps
    workers from waiting for each other, since a pass over a split dataset begins when all have ended theirs.

    Args:
        epoch: starts one pass over this worker's share of the data.
        budget: bytes of texts held. A share that fits is read once.

    Raises:
        ValueError: the share is empty.
    """

    def __init__(self, epoch: Callable[[], Iterable[pa.Table]], budget: int) -> None:
        self._epoch, self._bytes = epoch, budget // 2
        self._queue: queue.Queue[Texts] = queue.Queue(maxsize=1)
        blocks = self._blocks()
        first, second = next(blocks, None), next(blocks, None)
        if first is None:
            raise ValueError("no training data for this worker")
        self.first = first
        if second is not None:
            arguments = (second, blocks)
            threading.Thread(target=self._read_on, args=arguments, daemon=True).start()

    def next(self) -> Texts | None:
        """The next block, None if it is not there yet, or the first is all there is."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _blocks(self) -> Iterator[Texts]:
        parts: list[Texts] = []
        for table in self._epoch():
            parts.append(texts_of(table))
            if sum(part.bytes for part in parts) > self._bytes:
                yield join_texts(parts)
                parts = []
        if parts:
            yield join_texts(parts)

    def _read_on(self, block: Texts, blocks: Iterator[Texts]) -> None:
        self._queue.put(block)
        while True:
            for block in blocks:
                self._queue.put(block)
            blocks = self._blocks()
