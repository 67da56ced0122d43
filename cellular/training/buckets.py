"""Texts on a device, grouped by length, so that batches have few shapes and little padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

WIDTHS = (15, 20, 31, 41, 49, 63, 95)  # pieces of a text, its END included; positions are one more


class Measured(Protocol):
    """What can be grouped by length."""

    @property
    def lengths(self) -> Tensor:
        """(N,) int64, on the device that rows are wanted on: pieces of each, without END."""


@dataclass(frozen=True)
class Texts:
    """Texts as pieces, and their embeddings; N texts of E numbers.

    Args:
        pieces: (pieces of all texts,) uint8, one text after the other, without END.
        starts: (N + 1,) int64, where each begins and the last ends.
        embeddings_NE: (N, E) float16, unit norm.
    """

    pieces: Tensor
    starts: Tensor
    embeddings_NE: Tensor

    @property
    def lengths(self) -> Tensor:
        """(N,) int64: pieces of each text."""
        return self.starts.diff()

    @property
    def bytes(self) -> int:
        """What they occupy."""
        return sum(tensor.nbytes for tensor in (self.pieces, self.starts, self.embeddings_NE))

    def to(self, device: torch.device) -> "Texts":
        """The same on a device."""
        return Texts(*(tensor.to(device) for tensor in (self.pieces, self.starts, self.embeddings_NE)))


def texts_of(table: pa.Table) -> Texts:
    """The texts of a table that `write_shard` wrote, in memory."""
    pieces = pa.concat_arrays(table["pieces"].chunks).cast(pa.large_binary())
    starts = np.frombuffer(pieces.buffers()[1], np.int64)[pieces.offset : pieces.offset + len(pieces) + 1]
    data = np.frombuffer(pieces.buffers()[2], np.uint8)[starts[0] : starts[-1]]
    embeddings = pa.concat_arrays(table["embedding"].chunks)
    values = embeddings.flatten().to_numpy().reshape(len(embeddings), -1)
    arrays = (data, starts - starts[0], values)
    return Texts(*(torch.from_numpy(array.copy()) for array in arrays))


def join_texts(parts: Sequence[Texts]) -> Texts:
    """Several lots of texts as one."""
    offsets = np.cumsum([0, *(len(part.pieces) for part in parts)])
    starts = [part.starts[:-1] + int(offset) for part, offset in zip(parts, offsets, strict=False)]
    return Texts(
        torch.cat([part.pieces for part in parts]),
        torch.cat([*starts, torch.tensor([offsets[-1]])]),
        torch.cat([part.embeddings_NE for part in parts]),
    )


class Rows(NamedTuple):
    """Texts of one batch, all of one width."""

    width: int
    rows_B: Tensor  # int64, on the texts' device
    real_B: Tensor  # bool: false for rows that only fill the batch


class Buckets:
    """Draws batches of texts of like length, each text once before any is drawn again.

    The order depends on the seed, the worker and how far each bucket has come, and on nothing else:
    `position` is all that a checkpoint needs, and a fraction of a pass means the same to any workers.

    Args:
        texts: what to draw from; longer ones than the last width are cut there.
        tokens: positions of a batch, padding counted.
        seed: of the order.
        rank: this worker's number, so that workers differ.
    """

    def __init__(self, texts: Measured, tokens: int, seed: int, rank: int = 0) -> None:
        self._seed = (seed, rank)
        lengths = texts.lengths
        self._device, lengths = lengths.device, lengths.cpu() + 1
        edges = [0, *WIDTHS[:-1], 1 << 62]
        inside = [torch.nonzero((lengths > low) & (lengths <= high))[:, 0] for low, high in pairwise(edges)]
        self._members = dict(zip(WIDTHS, inside, strict=True))
        self._passes = dict.fromkeys(WIDTHS, 0)
        self._taken = dict.fromkeys(WIDTHS, 0)
        self._orders: dict[int, Tensor] = {}
        self.counts = [len(members) for members in inside]
        self.rows = [
            max(1, min(tokens // width, count)) for width, count in zip(WIDTHS, self.counts, strict=True)
        ]

    def draw(self, width: int) -> Rows:
        """The next texts of a bucket; of an empty one, a row that is not real."""
        wanted = self.rows[WIDTHS.index(width)]
        members = self._members[width]
        if not len(members):
            nothing = torch.zeros(wanted, dtype=torch.int64, device=self._device)
            return Rows(width, nothing, nothing.bool())
        if self._taken[width] + wanted > len(members):
            self._passes[width] += 1
            self._taken[width] = 0
            self._orders.pop(width, None)
        first = self._taken[width]
        self._taken[width] += wanted
        rows_B = self._order(width)[first : first + wanted]
        rows_B = rows_B.repeat(-(-wanted // len(rows_B)))[:wanted]  # a later block may have fewer
        return Rows(width, rows_B, torch.ones_like(rows_B, dtype=torch.bool))

    def _order(self, width: int) -> Tensor:
        if width not in self._orders:
            seeds = np.random.SeedSequence((*self._seed, width, self._passes[width]))
            generator = torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
            members = self._members[width]
            order = torch.randperm(len(members), generator=generator)
            self._orders[width] = members[order].to(self._device)
        return self._orders[width]

    def every(self) -> Iterator[Rows]:
        """Each text once, in order: for a loss that is not trained on."""
        for width, wanted in zip(WIDTHS, self.rows, strict=True):
            members = self._members[width]
            for rows_B in torch.split(members, wanted) if len(members) else ():
                yield self._filled(width, rows_B, wanted)

    def _filled(self, width: int, rows_B: Tensor, wanted: int) -> Rows:
        padding = (0, wanted - len(rows_B))
        real_B = torch.ones_like(rows_B, dtype=torch.bool)
        return Rows(width, *(F.pad(rows, padding).to(self._device) for rows in (rows_B, real_B)))

    @property
    def position(self) -> list[float]:
        """Passes through each bucket so far."""
        return [
            self._passes[width] + self._taken[width] / max(count, 1)
            for width, count in zip(WIDTHS, self.counts, strict=True)
        ]

    def seek(self, position: Sequence[float]) -> None:
        """Go on from a `position`, perhaps of another number of workers."""
        for width, count, passes in zip(WIDTHS, self.counts, position, strict=True):
            self._passes[width] = int(passes)
            self._taken[width] = round((passes - int(passes)) * count)
            self._orders.pop(width, None)

    @property
    def finished(self) -> bool:
        """Whether as many texts have been drawn as there are."""
        return sum(passes * count for passes, count in zip(self.position, self.counts, strict=True)) >= sum(
            self.counts
        )


def choose_width(weights: Sequence[float], seed: int, number: int) -> int:
    """The width of batch `number`: the same on every worker, and after any interruption."""
    generator = np.random.default_rng((seed, number))
    return int(generator.choice(WIDTHS, p=np.asarray(weights) / np.sum(weights)))
