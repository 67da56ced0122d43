"""Batches of texts for the loop, drawn from buckets of like length, and the loss on the held-out ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
import torch
import torch.distributed as dist

from cellular.training.buckets import WIDTHS, Buckets, Measured, Rows, choose_width
from cellular.training.config import TextLoopConfig
from cellular.training.feed import Block, Feed
from cellular.training.graphs import WARM_CALLS
from cellular.training.trainer import Trainer


class Held(Measured, Block, Protocol):
    """Rows of training data in memory, with lengths."""

    def to(self: "H", device: torch.device) -> "H":
        """The same on a device."""


H = TypeVar("H", bound=Held)


class BucketSource(Generic[H]):
    """Batches of one width each; all workers draw the same for a step, so that none waits for another.

    What rows of a bucket become is a subclass's: `batch` and `held_out_batch`.

    Args:
        train, held_out: start a pass over this worker's share of the data.
        config: sizes and seed.
        device: of the batches.
        read: the rows of a table.
        join: several lots of rows as one.
        copies: rows of a batch that one row of the data becomes.
    """

    unit = "tokens"

    def __init__(
        self,
        train: Callable[[], Iterable[pa.Table]],
        held_out: Callable[[], Iterable[pa.Table]],
        config: TextLoopConfig,
        device: torch.device,
        read: Callable[[pa.Table], H],
        join: Callable[[Sequence[H]], H],
        copies: int = 1,
    ) -> None:
        self._config, self._device = config, device
        self._rank, self._world = (
            (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        )
        tokens = config.step_tokens(device.type)
        self._passes = -(-tokens // (self._world * config.pass_tokens))
        self._tokens = tokens // (self._world * self._passes * copies)
        self._feed = Feed(train, config.resident_bytes, read, join)
        self._use(self._feed.first)
        self._held_out: H | None = None
        with suppress(ValueError):  # none of it is this worker's
            self._held_out = Feed(held_out, 1 << 62, read, join).first.to(device)
        self._weights = self._agree()

    def batch(self, held: H, rows: Rows) -> Any:
        """To be learned: tensors, among them `targets_BL`, and `mask_BL`, the weights of these pieces."""
        raise NotImplementedError

    def held_out_batch(self, held: H, rows: Rows) -> Any:
        """The same to be judged by."""
        raise NotImplementedError

    def _use(self, held: H) -> None:
        self._held = held.to(self._device)
        self._buckets = Buckets(self._held, self._tokens, self._config.seed, self._rank)

    def _agree(self) -> list[float]:
        """How often each width is drawn: by all workers' texts of that width, over those in a batch.

        A batch's loss is a mean over its pieces. Each text counts the same where that does not depend on
        how many texts share the mean: a width is drawn as often as it has texts.
        """
        totals = torch.tensor([self._buckets.counts, self._buckets.rows], dtype=torch.float64)
        if self._world > 1:
            totals = totals.to(self._device)
            dist.all_reduce(totals)
        if self._config.equal == "texts":
            return totals[0].tolist()
        return (totals[0] / totals[1]).tolist()

    def warm_up(self, trainer: Trainer) -> None:
        """Go through every width once without learning, so that compilation is not training time."""
        if self._device.type == "cuda":
            for width, weight in zip(WIDTHS, self._weights, strict=True):
                for _ in range(WARM_CALLS + 1 if weight else 0):
                    trainer.gradients([self.batch(self._held, self._buckets.draw(width))])
            torch.cuda.synchronize()

    def draw(self, step: int) -> tuple[Sequence[Any], int]:
        """This worker's batches of a step, and the positions in them."""
        if self._buckets.finished and (block := self._feed.next()):
            self._use(block)
        numbers = range(step * self._passes, (step + 1) * self._passes)
        widths = [choose_width(self._weights, self._config.seed, number) for number in numbers]
        batches = [self.batch(self._held, self._buckets.draw(width)) for width in widths]
        return batches, sum(batch.targets_BL.numel() for batch in batches)

    def evaluate(self, trainer: Trainer) -> float | None:
        """Nats a piece of the averaged weights on all workers' held-out texts."""
        return trainer.evaluate(self._held_out_batches(), lambda batch: batch.mask_BL.sum())

    def _held_out_batches(self) -> Iterator[Any]:
        if self._held_out is not None:
            buckets = Buckets(self._held_out, self._tokens, self._config.seed)
            buckets.rows = self._buckets.rows  # the shapes of training: nothing is compiled anew
            for rows in buckets.every():
                yield self.held_out_batch(self._held_out, rows)

    @property
    def position(self) -> list[float]:
        """Passes through each bucket."""
        return self._buckets.position

    def seek(self, position: list[float]) -> None:
        """Go on from a `position`."""
        self._buckets.seek(position)
