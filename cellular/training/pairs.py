"""Pairs of texts to learn from: which rows of a table belong together, and how a worker holds them.

Shapes: N pairs, B pairs of a batch, S pieces of the source with END, L pieces of the target with END.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cellular.decoders.ret.vocabulary import END
from cellular.objectives import drop_pieces
from cellular.phrases import normalise
from cellular.training.buckets import Rows
from cellular.training.lattice_config import PairsConfig

COLUMNS = ("source", "target", "task")
OTHERS = 4  # of its group that a text is paired with, where they have no order

Indices = NDArray[np.int64]
_NONE: Indices = np.empty(0, np.int64)


class PairBatch(NamedTuple):
    """Sources to read and targets to write. END pads them."""

    sources_BS: Tensor  # int64
    tasks_B: Tensor  # int64
    inputs_BL: Tensor  # int64, (B, L - 1): pieces of the target that are read
    targets_BL: Tensor  # int64: pieces that are to follow
    mask_BL: Tensor  # float32: 1 for every piece and the END behind the last, then 0


class Found(NamedTuple):
    """Texts, and which of them are pairs."""

    texts: list[str]
    sources: Indices
    targets: Indices


@dataclass(frozen=True)
class Pieces:
    """Texts one after the other.

    Args:
        data: (pieces of all texts,) uint8, without END.
        starts: (N + 1,) int64, where each begins and the last ends.
    """

    data: Tensor
    starts: Tensor

    @staticmethod
    def of(column: pa.ChunkedArray) -> "Pieces":
        """Those of a binary column."""
        whole = pa.concat_arrays(column.chunks).cast(pa.large_binary())
        starts = np.frombuffer(whole.buffers()[1], np.int64)[whole.offset : whole.offset + len(whole) + 1]
        data = np.frombuffer(whole.buffers()[2], np.uint8)[starts[0] : starts[-1]]
        return Pieces(torch.from_numpy(data.copy()), torch.from_numpy(starts - starts[0]))

    @staticmethod
    def join(parts: Sequence["Pieces"]) -> "Pieces":
        """Several lots of texts as one."""
        lengths = torch.cat([part.starts.diff() for part in parts])
        return Pieces(torch.cat([part.data for part in parts]), F.pad(lengths.cumsum(0), (1, 0)))

    def gather(self, rows_B: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """(B, width) int64 pieces, cut or padded by END, and (B, width) bool: each text's and its END."""
        numbers_L = torch.arange(width, device=self.starts.device)
        starts_B1, lengths_B1 = self.starts[rows_B, None], self.starts.diff()[rows_B, None]
        where_BL = (starts_B1 + numbers_L).clamp(max=max(len(self.data) - 1, 0))
        pieces_BL = torch.where(numbers_L < lengths_B1, self.data[where_BL].long(), END)
        return pieces_BL, numbers_L <= lengths_B1

    def to(self, device: torch.device) -> "Pieces":
        """The same on a device."""
        return Pieces(self.data.to(device), self.starts.to(device))


@dataclass(frozen=True)
class Pairs:
    """N pairs. A pair counts as often as its numbers are repeated."""

    sources: Pieces
    targets: Pieces
    tasks_N: Tensor
    numbers_N: Tensor

    @staticmethod
    def of(table: pa.Table, weights: Sequence[int]) -> "Pairs":
        """Those of a table with COLUMNS, each as often as its task's weight says."""
        sources, targets = (Pieces.of(table[name]) for name in COLUMNS[:2])
        tasks_N = torch.from_numpy(table["task"].to_numpy().astype(np.int64))
        numbers_N = torch.arange(len(tasks_N)).repeat_interleave(torch.tensor(weights)[tasks_N])
        return Pairs(sources, targets, tasks_N, numbers_N)

    @staticmethod
    def join(parts: Sequence["Pairs"]) -> "Pairs":
        """Several lots of pairs as one."""
        before = np.cumsum([0, *(len(part.tasks_N) for part in parts)])
        numbers = [part.numbers_N + int(offset) for part, offset in zip(parts, before, strict=False)]
        return Pairs(
            Pieces.join([part.sources for part in parts]),
            Pieces.join([part.targets for part in parts]),
            torch.cat([part.tasks_N for part in parts]),
            torch.cat(numbers),
        )

    @property
    def lengths(self) -> Tensor:
        """(N,) int64, pieces of the longer text of each pair, repeated ones repeated."""
        longer = torch.maximum(self.sources.starts.diff(), self.targets.starts.diff())
        return longer[self.numbers_N]

    @property
    def bytes(self) -> int:
        """What they occupy."""
        parts = (self.sources, self.targets)
        texts = sum(part.data.nbytes + part.starts.nbytes for part in parts)
        return texts + self.tasks_N.nbytes + self.numbers_N.nbytes

    def to(self, device: torch.device) -> "Pairs":
        """The same on a device."""
        texts = self.sources.to(device), self.targets.to(device)
        return Pairs(*texts, self.tasks_N.to(device), self.numbers_N.to(device))

    def batch(self, rows: Rows, piece_drop: float = 0.0) -> PairBatch:
        """Gather pairs; of the target's pieces that are read, a share may be hidden."""
        numbers_B = self.numbers_N[rows.rows_B]
        sources_BS, _ = self.sources.gather(numbers_B, rows.width)
        targets_BL, counted_BL = self.targets.gather(numbers_B, rows.width)
        mask_BL = (counted_BL & rows.real_B[:, None]).float()
        inputs_BL = drop_pieces(targets_BL[:, :-1].contiguous(), piece_drop)
        return PairBatch(sources_BS, self.tasks_N[numbers_B], inputs_BL, targets_BL, mask_BL)


def find_pairs(table: pa.Table, text_column: str, pairs: PairsConfig | None) -> Found:
    """Which texts of a table go together.

    Args:
        table: a group's rows are all in it.
        text_column: holds the texts, but where `pairs` names columns of its own.
        pairs: None: each text with itself, once.

    Returns:
        Texts, and the numbers of sources and of targets among them; none where the table lacks a column.
    """
    if pairs is None:
        texts = list(dict.fromkeys(_texts(table, text_column)))
        every = np.arange(len(texts))
        return Found(texts, every, every)
    named = [column for column in (pairs.group, pairs.order, pairs.source, pairs.target) if column]
    if not {*named} <= {*table.column_names}:
        return Found([], _NONE, _NONE)
    if pairs.source and pairs.target:
        texts = _texts(table, pairs.source) + _texts(table, pairs.target)
        return Found(texts, np.arange(len(table)), np.arange(len(table), 2 * len(table)))
    group = table[pairs.group].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    if pairs.order:
        rows = np.lexsort((table[pairs.order].to_numpy(), group))
        following = group[rows[:-1]] == group[rows[1:]]
        return Found(_texts(table, text_column), rows[:-1][following], rows[1:][following])
    return Found(_texts(table, text_column), *_within_groups(np.argsort(group, kind="stable"), group))


def _texts(table: pa.Table, column: str) -> list[str]:
    """Texts with white space folded; what is none becomes empty."""
    return [normalise(text) if isinstance(text, str) else "" for text in table[column].to_pylist()]


def _within_groups(rows: Indices, group: Indices) -> tuple[Indices, Indices]:
    """Each row with the next few of its group, round and round; `rows` are in the order of groups."""
    _, first, inverse, sizes = np.unique(
        group[rows], return_index=True, return_inverse=True, return_counts=True
    )
    first, sizes = first[inverse], sizes[inverse]
    place = np.arange(len(rows)) - first
    steps = [(step, step < sizes) for step in range(1, OTHERS + 1)]
    sources = [rows[more] for _, more in steps]
    targets = [rows[(first + (place + step) % sizes)[more]] for step, more in steps]
    return np.concatenate(sources), np.concatenate(targets)
