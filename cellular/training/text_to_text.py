"""What is particular to training text to text: the model, its trainer, and its batches."""

from collections.abc import Callable, Iterable

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.cct.model import CCT
from cellular.devices import fast_dtype
from cellular.training.bucket_source import BucketSource
from cellular.training.buckets import Rows
from cellular.training.pairs import PairBatch, Pairs
from cellular.training.text_to_text_config import TrainTextToTextConfig
from cellular.training.trainer import Trainer


def make_model(config: TrainTextToTextConfig) -> CCT:
    """A new model."""
    return CCT(config.network)


def make_trainer(config: TrainTextToTextConfig, model: CCT) -> Trainer:
    """The trainer of a model on its device: it makes the targets likely."""
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    compiled = cuda if config.loop.compile is None else config.loop.compile
    return Trainer(
        model,
        likelihood,
        matrices(model),
        config.optimizer,
        config.schedule,
        dtype=fast_dtype(device),
        graphs=cuda if config.loop.graphs is None else config.loop.graphs,
        prepare=accelerate if compiled else None,
    )


def likelihood(model: CCT, batch: PairBatch) -> Tensor:
    """Cross entropy of the targets' pieces, in nats a piece: a scalar, float32."""
    scores_BLV = model(batch.sources_BS, batch.tasks_B, batch.inputs_BL)
    losses = F.cross_entropy(scores_BLV.flatten(0, 1), batch.targets_BL.flatten(), reduction="none")
    weights = batch.mask_BL.flatten()
    return (losses * weights).sum() / weights.count_nonzero().clamp(min=1)


def matrices(model: CCT) -> dict[str, int]:
    """For Muon: name → matrices stacked in it by rows. Tables of pieces, gains and taps are AdamW's."""
    slots = model.config.slots
    stacked = {"query_key_value": 3, "value": slots, "slots_ED": slots}
    tables = ("pieces", "tasks", "slot_codes_PD", "taps_KG", "score")
    names = {name: name.rpartition(".")[2] for name, weight in model.named_parameters() if weight.ndim == 2}
    return {name: stacked.get(last, 1) for name, last in names.items() if last not in tables}


def accelerate(model: CCT) -> None:
    """Compile the layers and the cells' step; each shape by itself: with symbolic ones torch 2.11 fails."""
    torch._dynamo.config.recompile_limit = 64
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.compile(dynamic=False)
    step = torch.compile(model.lattice.step, dynamic=False)
    setattr(model.lattice, "step", step)  # noqa: B010  (mypy: a method)


def flops_per_position(model: nn.Module) -> float:
    """Of forward and backward: the products of encoder and decoder with a text's own positions."""
    assert isinstance(model, CCT)
    layer = sum(weight.numel() for weight in model.decoder.layers.parameters())
    own = sum(weight.numel() for weight in model.encoder.layers.parameters()) / 2
    return 6.0 * (layer + own + model.decoder.pieces.numel())


class PairSource(BucketSource[Pairs]):
    """Batches of pairs; a batch holds pairs of all tasks, as often as they are to be learned."""

    def __init__(
        self,
        train: Callable[[], Iterable[pa.Table]],
        held_out: Callable[[], Iterable[pa.Table]],
        config: TrainTextToTextConfig,
        device: torch.device,
    ) -> None:
        self._piece_drop = config.piece_drop
        weights = [task.weight for task in config.data.tasks.values()]
        super().__init__(
            train, held_out, config.loop, device, lambda table: Pairs.of(table, weights), Pairs.join
        )

    def batch(self, held: Pairs, rows: Rows) -> PairBatch:
        """With some of the read pieces hidden."""
        return held.batch(rows, self._piece_drop)

    def held_out_batch(self, held: Pairs, rows: Rows) -> PairBatch:
        """With all pieces."""
        return held.batch(rows)
