"""Embeddings that belong together, such as the turns of a dialogue: their files, and how a worker holds them.

Shapes: N texts, G groups, E embedding dimension, B pairs of a batch, H earlier texts, L pieces with END.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellular.files import atomic_path
from cellular.training.buckets import Texts, join_texts, texts_of
from cellular.types import FloatArray

COLUMNS = ("pieces", "embedding", "key")


@dataclass(frozen=True)
class Groups:
    """N texts in G groups, in the order of their groups.

    Args:
        texts: their pieces and embeddings.
        keys_N: int64, equal for equal texts.
        groups_N: int64, the number of each text's group; its texts stand together.
    """

    texts: Texts
    keys_N: Tensor
    groups_N: Tensor

    @property
    def bytes(self) -> int:
        """What they occupy."""
        return self.texts.bytes + self.keys_N.nbytes + self.groups_N.nbytes

    def to(self, device: torch.device) -> "Groups":
        """The same on a device."""
        return Groups(self.texts.to(device), self.keys_N.to(device), self.groups_N.to(device))

    def targets(self, ordered: bool) -> Tensor:
        """(A,) int64: texts that follow another of their group or, without an order, stand beside one."""
        follows_N = torch.zeros_like(self.groups_N, dtype=torch.bool)
        follows_N[1:] = self.groups_N[:-1] == self.groups_N[1:]
        if not ordered:
            follows_N[:-1] |= follows_N[1:].clone()
        return follows_N.nonzero()[:, 0]

    def others(self, rows_B: Tensor, draws_B: Tensor) -> Tensor:
        """(B,) int64: another text of the group of each, by numbers that were drawn at random."""
        groups_B = self.groups_N[rows_B]
        first_B = torch.searchsorted(self.groups_N, groups_B)
        sizes_B = torch.searchsorted(self.groups_N, groups_B, right=True) - first_B
        steps_B = 1 + draws_B % (sizes_B - 1)
        return first_B + (rows_B - first_B + steps_B) % sizes_B

    def earlier(self, rows_B: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(B, H, E) float32 embeddings before each in its group, newest last; (B, H) bool: which exist."""
        back_H = torch.arange(-count, 0, device=rows_B.device)
        rows_BH = rows_B[:, None] + back_H
        before_BH = rows_BH.clamp(min=0)
        present_BH = (rows_BH >= 0) & (self.groups_N[before_BH] == self.groups_N[rows_B][:, None])
        return self.texts.embeddings_NE[before_BH].float() * present_BH[..., None], present_BH


def groups_of(table: pa.Table) -> Groups:
    """The groups of a table with COLUMNS that `write_groups` wrote: a row a group."""
    lists = {name: pa.concat_arrays(table[name].chunks) for name in COLUMNS}
    texts = texts_of(pa.table({name: lists[name].flatten() for name in COLUMNS[:2]}))
    sizes = torch.from_numpy(pc.list_value_length(lists["key"]).to_numpy().astype(np.int64))
    keys_N = torch.from_numpy(lists["key"].flatten().to_numpy().copy())
    return Groups(texts, keys_N, torch.arange(len(sizes)).repeat_interleave(sizes))


def singles_of(table: pa.Table) -> Groups:
    """The texts of a table that `write_shard` wrote, each a group of its own; none is there twice."""
    texts = texts_of(table)
    keys_N = texts.embeddings_NE[:, :4].contiguous().view(torch.int64)[:, 0]  # 64 bits that differ by text
    return Groups(texts, keys_N, torch.arange(len(keys_N)))


def join_groups(parts: Sequence[Groups]) -> Groups:
    """Several lots of groups as one; those of different lots stay apart."""
    counts = [int(part.groups_N[-1]) + 1 if len(part.groups_N) else 0 for part in parts]
    offsets = np.cumsum([0, *counts[:-1]])
    return Groups(
        join_texts([part.texts for part in parts]),
        torch.cat([part.keys_N for part in parts]),
        torch.cat([part.groups_N + int(offset) for part, offset in zip(parts, offsets, strict=True)]),
    )


def write_groups(
    path: Path,
    texts: Sequence[str],
    pieces: Sequence[NDArray[np.uint8]],
    embeddings: FloatArray,
    keys: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:
    """Write one Parquet file, a row a group: lists of text, pieces (a byte each, no END), embedding and key.

    Args:
        path: the file; it is there complete or not at all.
        texts: N texts, group by group.
        pieces: their ids.
        embeddings: (N, D) float32, kept as FixedSizeList<float16>[D].
        keys: (N,) equal for equal texts.
        sizes: (G,) texts of each group.
    """
    values = pa.array(embeddings.astype(np.float16).ravel())
    columns = {
        "text": pa.array(texts, pa.string()),
        "pieces": pa.array([ids.tobytes() for ids in pieces], pa.binary()),
        "embedding": pa.FixedSizeListArray.from_arrays(values, embeddings.shape[1]),
        "key": pa.array(keys),
    }
    starts = pa.array(np.cumsum([0, *sizes]), pa.int32())
    rows = {name: pa.ListArray.from_arrays(starts, column) for name, column in columns.items()}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(rows), temporary, compression="zstd", use_dictionary=False)
