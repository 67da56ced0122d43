"""What is particular to training text to text: the model, its trainer, and its batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.cct.model import CCT
from cellular.training.buckets import WIDTHS, Buckets, choose_width
from cellular.training.text_to_text_config import TrainTextToTextConfig
from cellular.training.graphs import WARM_CALLS
from cellular.training.pairs import PairBatch, Pairs
from cellular.training.trainer import Trainer


def make_model(config: TrainTextToTextConfig) -> CCT:
    """A new model."""
    return CCT(config.shape)


def make_trainer(config: TrainTextToTextConfig, model: CCT) -> Trainer:
    """The trainer of a model on its device: it makes the targets likely."""
    cuda = next(model.parameters()).device.type == "cuda"
    compiled = cuda if config.loop.compile is None else config.loop.compile
    return Trainer(
        model,
        likelihood,
        matrices(model),
        config.optimizer,
        config.schedule,
        dtype=torch.bfloat16 if cuda else torch.float32,
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
    """Compile the layers and the cells' rule; each shape by itself: with symbolic ones torch 2.11 fails."""
    torch._dynamo.config.recompile_limit = 64
    parts: list[nn.Module] = [*model.encoder.layers, *model.decoder.layers]
    for part in parts:
        part.compile(dynamic=False)


def flops_per_position(model: nn.Module) -> float:
    """Of forward and backward: the products of encoder and decoder with a text's own positions."""
    assert isinstance(model, CCT)
    layer = sum(weight.numel() for weight in model.decoder.layers.parameters())
    own = sum(weight.numel() for weight in model.encoder.layers.parameters()) / 2
    return 6.0 * (layer + own + model.decoder.pieces.numel())
