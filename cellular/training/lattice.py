"""What is particular to training a lattice: the model, its trainer, and its batches.

Shapes: B embeddings, E their dimension, N texts, H earlier embeddings, M candidates of all workers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cellular.damage import Damage
from cellular.decoders.ret.checkpoint import load_checkpoint
from cellular.devices import fast_dtype
from cellular.embedding_objectives import EmbeddingBatch, EmbeddingLoss
from cellular.lattice import Lattice3D, count_parameters, load_lattice
from cellular.mlp import MLP, MLPConfig, equal_width, load_mlp
from cellular.objectives import make_batch
from cellular.training.buckets import WIDTHS, Rows
from cellular.training.feed import Feed
from cellular.training.graphs import WARM_CALLS
from cellular.training.groups import Groups, groups_of, join_groups, singles_of
from cellular.training.guides import guided, load_guide
from cellular.training.lattice_config import TrainLatticeConfig
from cellular.training.trainer import Trainer

HISTORY = 128  # width of the Mamba over turns, unless it is set
EVALUATED = 16  # passes of held-out texts, at most


def make_model(config: TrainLatticeConfig, dimension: int) -> Lattice3D | MLP:
    """A new model, or the base's; an MLP has as many parameters as the lattice would have."""
    history = (config.lattice.history or HISTORY) if config.history else None
    if config.base:
        return load_mlp(config.base).mlp if config.model == "mlp" else _continued(config, history)
    shape = config.lattice.model_copy(update={"embedding_dimension": dimension, "history": history})
    lattice = Lattice3D(shape)
    if config.model == "lattice":
        return lattice
    equal = equal_width(count_parameters(lattice)["all"], dimension, config.history)
    return MLP(
        MLPConfig(
            embedding_dimension=dimension,
            hidden=config.mlp.hidden or equal,
            history=config.history,
            dropout=config.lattice.dropout,
            skip=config.mlp.skip,
        )
    )


def _continued(config: TrainLatticeConfig, history: int | None) -> Lattice3D:
    """The base's lattice, with this training's dropout and, where it has none yet, a new part for history."""
    base = load_lattice(str(config.base)).lattice
    update = {"dropout": config.lattice.dropout, "history": base.config.history or history}
    lattice = Lattice3D(base.config.model_copy(update=update))
    lattice.load_state_dict(lattice.state_dict() | base.state_dict())
    return lattice


def make_trainer(config: TrainLatticeConfig, model: nn.Module) -> Trainer:
    """The trainer of a model on its device."""
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    decoder = None
    if config.loss.likelihood:
        decoder = load_checkpoint(config.loss.decoder).model.to(device).requires_grad_(False)
    return Trainer(
        model,
        EmbeddingLoss(config.loss, decoder),
        {name: 1 for name, weight in model.named_parameters() if _is_matrix(weight)},
        config.optimizer,
        config.schedule,
        dtype=fast_dtype(device),
        graphs=cuda if config.loop.graphs is None else config.loop.graphs,
        prepare=_compile if config.loop.compile else None,
    )


def _is_matrix(weight: Tensor) -> bool:
    """Whether Muon should train it: a convolution's few taps a channel are no map from space to space."""
    return weight.ndim == 2 and min(weight.shape) > 8


def _compile(model: nn.Module) -> None:
    """Part by part: compiled as a whole, a lattice's steps would be compiled one by one."""
    if not isinstance(model, Lattice3D):
        model.compile(dynamic=False)
        return
    setattr(model, "step", torch.compile(model.step, dynamic=False))  # noqa: B010  (mypy: a method)
    for sweep in model.sweeps:
        sweep.compile(dynamic=False)


def flops_per_embedding(model: nn.Module) -> float:
    """Of forward and backward, which takes twice as many: those of the products of matrices."""
    dimension = cast(Lattice3D | MLP, model).config.embedding_dimension
    one_1E = torch.ones(1, dimension, device=next(model.parameters()).device) / dimension**0.5
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(one_1E)
    return 3.0 * float(counter.get_total_flops())


class EmbeddingSource:
    """Batches of embeddings for the loop, and the loss on the held-out ones.

    Rows are drawn at random, the same for the same seed, worker and step. Each worker's targets are
    candidates of all; equal texts, and others that would be right too, never count as wrong.
    """

    unit = "embeddings"

    def __init__(
        self,
        train: Callable[[], Iterable[pa.Table]],
        held_out: Callable[[], Iterable[pa.Table]],
        config: TrainLatticeConfig,
        device: torch.device,
    ) -> None:
        self._config, self._device = config, device
        self._rank, self._world = (
            (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        )
        loop, batch = config.loop, config.step_rows(device.type)
        self._passes = -(-batch // (self._world * loop.pass_rows))
        self._rows = max(2, batch // (self._world * self._passes))
        self._damage = Damage(config.damage)
        self._guides = [load_guide(name)[0].to(device, fast_dtype(device)) for name in config.guides]
        read = groups_of if config.pairs else singles_of
        self._feed = Feed(train, loop.resident_bytes, read, join_groups)
        self._use(self._feed.first)
        lots = [read(table) for table in held_out()]
        self._held_out = self._draws_of(join_groups(lots)) if lots else None

    @property
    def _ordered(self) -> bool | None:
        return self._config.pairs.ordered if self._config.pairs else None

    def _use(self, groups: Groups) -> None:
        self._draws, self._drawn = self._draws_of(groups), 0
        if not len(self._draws):
            raise ValueError("none of this worker's texts has another that belongs to it: see the columns")

    def _draws_of(self, groups: Groups) -> "_Draws":
        groups = groups.to(self._device)
        return _Draws(groups, self._ordered, guided(self._guides, groups, self._config.history))

    def warm_up(self, trainer: Trainer) -> None:
        """Compile and capture without learning."""
        if self._device.type == "cuda":
            for _ in range(WARM_CALLS + 1):
                trainer.gradients([self._batch(self._draws, np.random.default_rng(0))])
            torch.cuda.synchronize()

    def draw(self, step: int) -> tuple[Sequence[EmbeddingBatch], int]:
        """This worker's batches of a step, and the embeddings in them."""
        if self._drawn >= len(self._draws) and (block := self._feed.next()):
            self._use(block)
        generator = np.random.default_rng((self._config.loop.seed, self._rank, step))
        batches = [self._batch(self._draws, generator) for _ in range(self._passes)]
        self._drawn += self._rows * self._passes
        return batches, self._rows * self._passes

    def _batch(self, draws: "_Draws", generator: np.random.Generator, alone: bool = False) -> EmbeddingBatch:
        rows_B, targets_B = draws.pairs(generator, self._rows)
        groups, embeddings_NE = draws.groups, draws.groups.texts.embeddings_NE
        clean_BE, target_BE = embeddings_NE[rows_B].float(), embeddings_NE[targets_B].float()
        near_BE = target_BE if draws.guided_NE is None else draws.guided_NE[rows_B].float()
        earlier_BHE, present_BH = groups.earlier(rows_B, self._config.history)
        labels_B2 = self._labels(groups, targets_B)
        extra_X = draws.targets(generator, self._config.loss.extra)
        world = 1 if alone else self._world
        candidates_ME = torch.cat([gather(target_BE, world), embeddings_NE[extra_X].float()])
        labels_M2 = torch.cat([gather(labels_B2, world), self._labels(groups, extra_X)])
        return EmbeddingBatch(
            self._damage(clean_BE),
            target_BE,
            near_BE,
            candidates_ME,
            (labels_B2[:, None] != labels_M2).all(2),
            earlier_BHE,
            self._forget(present_BH),
            *self._pieces(groups, targets_B),
        )

    def _forget(self, present_BH: Tensor) -> Tensor:
        """Leave some histories their last texts or none, fewer more often, so that these are learned too."""
        (batch, count), device = present_BH.shape, present_BH.device
        kept_B1 = (torch.rand(batch, 1, device=device).square() * (count + 1)).floor()
        whole_B1 = torch.rand(batch, 1, device=device) >= self._config.forget
        return present_BH & (whole_B1 | (torch.arange(count, device=device) >= count - kept_B1))

    def _labels(self, groups: Groups, rows_B: Tensor) -> Tensor:
        """(B, 2) int64: of two targets with either number in common one is as right as the other.

        The text's, and the group's, unless order says which of a group is right.
        """
        keys_B = groups.keys_N[rows_B]
        if self._ordered is not False:
            return torch.stack([keys_B, keys_B], 1)
        return torch.stack([keys_B, groups.groups_N[rows_B] * self._world + self._rank], 1)

    def _pieces(self, groups: Groups, targets_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) pieces of the targets and their mask, as the frozen decoder reads them."""
        if not self._config.loss.likelihood:
            return targets_B.new_zeros(len(targets_B), 0), targets_B.new_zeros(len(targets_B), 0).float()
        batch = make_batch(
            groups.texts, Rows(WIDTHS[-1], targets_B, torch.ones_like(targets_B, dtype=torch.bool))
        )
        return batch.targets_BL, batch.mask_BL

    def evaluate(self, trainer: Trainer) -> float | None:
        """The averaged weights' loss on all workers' held-out texts, each worker's among its own."""
        return trainer.evaluate(
            self._held_out_batches(), lambda batch: torch.tensor(len(batch.source_BE), device=self._device)
        )

    def _held_out_batches(self) -> Iterator[EmbeddingBatch]:
        """The same texts, damaged in the same ways, each time."""
        count = len(self._held_out) if self._held_out else 0
        if self._held_out is None or not count:
            return
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._config.loop.seed)
            generator = np.random.default_rng(self._config.loop.seed)
            for _ in range(min(EVALUATED, -(-count // self._rows))):
                yield self._batch(self._held_out, generator, alone=True)

    @property
    def position(self) -> None:
        """Nothing: a step's rows follow from its number."""

    def seek(self, position: None) -> None:
        """Nothing to be done."""


class _Draws:
    """Texts, and which of them another leads to.

    Each target's text is as likely as any other, however often it occurs. What guides make of each text
    comes with it, None without guides.
    """

    def __init__(self, groups: Groups, ordered: bool | None, guided_NE: Tensor | None = None) -> None:
        self.groups, self.guided_NE, self._ordered = groups, guided_NE, ordered
        device = groups.keys_N.device
        rows_A = torch.arange(len(groups.keys_N), device=device)
        if ordered is not None:
            rows_A = groups.targets(ordered)
        order_A = groups.keys_N[rows_A].argsort()
        self._rows = rows_A[order_A]
        _, counts = torch.unique_consecutive(groups.keys_N[self._rows], return_counts=True)
        self._counts, self._firsts = counts, counts.cumsum(0) - counts

    def __len__(self) -> int:
        return len(self._counts)

    def targets(self, generator: np.random.Generator, count: int) -> Tensor:
        """(count,) rows, each an occurrence of a text."""
        device = self._counts.device
        texts_B = torch.from_numpy(generator.integers(len(self), size=count)).to(device)
        draws_B = torch.from_numpy(generator.integers(1 << 31, size=count)).to(device)
        return self._rows[self._firsts[texts_B] + draws_B % self._counts[texts_B]]

    def pairs(self, generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """(B,) rows to read and (B,) rows that are wanted."""
        targets_B = self.targets(generator, count)
        if self._ordered is None:
            return targets_B, targets_B
        if self._ordered:
            return targets_B - 1, targets_B
        draws_B = torch.from_numpy(generator.integers(1 << 31, size=count)).to(targets_B.device)
        return self.groups.others(targets_B, draws_B), targets_B


def gather(rows_BX: Tensor, world: int) -> Tensor:
    """(M, X): the rows of all workers, in their order."""
    if world == 1:
        return rows_BX
    gathered = rows_BX.new_empty(world * len(rows_BX), *rows_BX.shape[1:])
    dist.all_gather_into_tensor(gathered, rows_BX.contiguous())
    return gathered
