"""What is particular to training an adapter: its loss, its trainer, and where its pairs come from.

Shapes: N pairs, B of a batch, S dimension of the source space, T of the target's, D of either.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cellular.adapter import AdapterConfig, Linear, load_maps, make_network
from cellular.training.adapter_config import ContrastConfig, PairLoopConfig, TrainAdapterConfig
from cellular.training.feed import Feed
from cellular.training.trainer import Trainer

COLUMNS = ("source", "target")  # of files of pairs: FixedSizeList<float16>


class PairBatch(NamedTuple):
    """Both embeddings of some texts, float32, unit norm."""

    source_BS: Tensor
    target_BT: Tensor


class AdapterLoss:
    """1 - cosine of what a strategy compares, plus a share of InfoNCE among the batch, both ways.

    van den Oord et al. 2018, Representation learning with contrastive predictive coding.
    """

    def __init__(self, config: ContrastConfig) -> None:
        self._config = config

    def __call__(self, network: Linear, batch: PairBatch) -> Tensor:
        """Scalar float32, the mean over all that is compared."""
        losses = [self._distance(*pair) for pair in network.compared(*batch)]
        return torch.stack(losses).mean()

    def _distance(self, there_BD: Tensor, wanted_BD: Tensor) -> Tensor:
        cosine_BB = F.normalize(there_BD, dim=1) @ F.normalize(wanted_BD, dim=1).T
        scores_BB = cosine_BB / self._config.temperature
        numbers_B = torch.arange(len(cosine_BB), device=cosine_BB.device)
        contrast = F.cross_entropy(scores_BB, numbers_B) + F.cross_entropy(scores_BB.T, numbers_B)
        return 1 - cosine_BB.diagonal().mean() + self._config.weight / 2 * contrast


@dataclass(frozen=True)
class EmbeddingPairs:
    """Pairs in memory, (N, S) and (N, T) float16."""

    source_NS: Tensor
    target_NT: Tensor

    @property
    def bytes(self) -> int:
        """What they occupy."""
        return self.source_NS.nbytes + self.target_NT.nbytes

    @staticmethod
    def of(table: pa.Table) -> "EmbeddingPairs":
        """Those of a table with COLUMNS."""
        return EmbeddingPairs(*(torch.from_numpy(_matrix(table[name])) for name in COLUMNS))

    @staticmethod
    def join(parts: Sequence["EmbeddingPairs"]) -> "EmbeddingPairs":
        """Several lots of pairs as one."""
        return EmbeddingPairs(
            torch.cat([part.source_NS for part in parts]), torch.cat([part.target_NT for part in parts])
        )

    def to(self, device: torch.device) -> "EmbeddingPairs":
        """The same on a device."""
        return EmbeddingPairs(self.source_NS.to(device), self.target_NT.to(device))

    def batch(self, rows_B: Tensor) -> PairBatch:
        """Some of the pairs."""
        return PairBatch(self.source_NS[rows_B].float(), self.target_NT[rows_B].float())


class PairSource:
    """Batches of pairs for the loop, and the loss on the held-out ones.

    Rows are drawn at random, the same for the same seed, worker and step. Of data that do not fit in memory,
    a block gives way to the next when as many rows have been drawn as it has.
    """

    unit = "pairs"

    def __init__(
        self,
        train: Callable[[], Iterable[pa.Table]],
        held_out: Callable[[], Iterable[pa.Table]],
        config: PairLoopConfig,
        device: torch.device,
    ) -> None:
        self._rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._rows, self._seed, self._device = max(2, config.batch_pairs // world), config.seed, device
        self._feed = Feed(train, config.resident_bytes, EmbeddingPairs.of, EmbeddingPairs.join)
        self._use(self._feed.first)
        tables = [EmbeddingPairs.of(table) for table in held_out()]
        self._held_out = EmbeddingPairs.join(tables).to(device) if tables else None

    def _use(self, pairs: EmbeddingPairs) -> None:
        self._pairs, self._drawn = pairs.to(self._device), 0

    def warm_up(self, trainer: Trainer) -> None:
        """Nothing is compiled."""

    def draw(self, step: int) -> tuple[Sequence[PairBatch], int]:
        """This worker's batch of a step, and the pairs in it."""
        if self._drawn >= len(self._pairs.source_NS) and (block := self._feed.next()):
            self._use(block)
        self._drawn += self._rows
        rows = np.random.default_rng((self._seed, self._rank, step)).integers(
            len(self._pairs.source_NS), size=self._rows
        )
        return [self._pairs.batch(torch.from_numpy(rows).to(self._device))], self._rows

    def evaluate(self, trainer: Trainer) -> float | None:
        """The averaged weights' loss on all workers' held-out pairs, in batches as large as in training."""
        return trainer.evaluate(
            self._held_out_batches(), lambda batch: torch.tensor(len(batch.source_BS), device=self._device)
        )

    def _held_out_batches(self) -> Iterator[PairBatch]:
        if self._held_out:
            numbers_N = torch.arange(len(self._held_out.source_NS), device=self._device)
            for rows_B in torch.split(numbers_N, self._rows):
                yield self._held_out.batch(rows_B)

    @property
    def position(self) -> None:
        """Nothing: a step's rows follow from its number."""

    def seek(self, position: None) -> None:
        """Go on: a step's rows follow from its number."""


def shape(config: TrainAdapterConfig, source_dimension: int, target_dimension: int) -> AdapterConfig:
    """Of the adapter that is asked for."""
    return AdapterConfig(
        strategy=config.strategy,
        source_dimension=source_dimension,
        target_dimension=target_dimension,
        width=config.width,
    )


def make_trainer(config: TrainAdapterConfig, start: Path, device: torch.device) -> Trainer:
    """The trainer of a network that begins with the maps in a file."""
    there, back = load_maps(start)
    network = make_network(shape(config, *there.weight.shape), config.loop.seed)
    network.start(there, back)
    return Trainer(network.to(device), AdapterLoss(config.contrast), {}, config.optimizer, config.schedule)


def flops_per_pair(network: nn.Module) -> float:
    """Of forward and backward: each weight multiplies once."""
    return 6.0 * sum(weight.numel() for weight in cast(Linear, network).parameters())


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float16]:
    rows = pa.concat_arrays(column.chunks)
    matrix: NDArray[np.float16] = rows.flatten().to_numpy().reshape(len(rows), -1).copy()
    return matrix
