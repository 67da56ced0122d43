"""What is particular to training RET: the model, its trainer, and its batches."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import cast

import pyarrow as pa
import torch

from cellular.decoders.ret.checkpoint import load_checkpoint
from cellular.decoders.ret.model import HIDDEN, RET, RETConfig
from cellular.decoders.ret.quantization import FakeQuantiser
from cellular.decoders.ret.reward import RewardedTexts
from cellular.decoders.ret.sparsity import MagnitudePruner
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.decoders.ret.weights import BITS, MATRICES, matrices
from cellular.devices import fast_dtype
from cellular.errors import CellularError
from cellular.objectives import Batch, LikelihoodLoss, Objective, make_batch
from cellular.teachers import load_teacher
from cellular.training.bucket_source import BucketSource
from cellular.training.buckets import Rows, Texts, join_texts, texts_of
from cellular.training.config import TextLoopConfig, TrainRETConfig, VariationConfig
from cellular.training.trainer import Trainer

# For Muon: name → square parts stacked in the matrix. `pieces` is a table, which AdamW does better.
MUON = {"projection": 1, "query_key_value": 3, "attention_out": 1, "mlp_in": 1, "mlp_out": 1}


def make_model(config: TrainRETConfig, dimension: int) -> RET:
    """A new model, or the base's; with `only`, everything but that is frozen and that is new."""
    base = load_checkpoint(config.base).model if config.base else None
    shape = base.config if base else RETConfig()
    applications = config.applications or shape.applications
    model = RET(RETConfig(embedding_dimension=dimension, applications=applications))
    if base:
        weights = {name: weight for name, weight in base.state_dict().items() if name != config.only}
        model.load_state_dict(weights, strict=config.only is None)
    for name, weight in model.named_parameters():
        weight.requires_grad_(config.only in (None, name))
    return model


def make_trainer(config: TrainRETConfig, model: RET, objective: Objective | None = None) -> Trainer:
    """The trainer of a model on its device; by default it makes its texts likely."""
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    compiled = cuda if config.loop.compile is None else config.loop.compile
    graphs = cuda if config.loop.graphs is None else config.loop.graphs
    fused = runs_fused(cuda) if config.loop.fused is None else config.loop.fused
    if fused and not runs_fused(cuda):
        raise CellularError("our kernels need a Hopper GPU and Triton: use --no-fused")
    bits = BITS.get(config.precision)
    return Trainer(
        model,
        objective or _likelihood(compiled, fused),
        {} if config.reward else MUON,  # Muon makes every direction of a gradient as long: also its noise
        config.optimizer,
        config.schedule,
        dtype=fast_dtype(device),
        graphs=graphs,
        prepare=lambda copy: accelerate(cast(RET, copy), compiled, fused),
        pruner=MagnitudePruner(matrices(model), config.sparsity) if config.sparsity else None,
        rounding=(lambda weights: FakeQuantiser({name: weights[name] for name in MATRICES}, bits))
        if bits
        else None,
    )


def _likelihood(compiled: bool, fused: bool) -> Objective:
    if fused:
        from cellular.decoders.ret.fused import fused_likelihood

        return fused_likelihood
    return LikelihoodLoss(compiled)


def make_reward(config: TrainRETConfig, trainer: Trainer, seed: int) -> RewardedTexts | None:
    """What turns texts into samples with advantages, if that is how they are to be learned."""
    if config.reward is None:
        return None
    path = config.data.vocabulary
    vocabulary = Vocabulary.from_file(path) if path else Vocabulary.load()
    return RewardedTexts(
        cast(RET, trainer.copy), load_teacher(config.data.teacher), vocabulary, config.reward, seed
    )


def runs_fused(cuda: bool) -> bool:
    """Whether our kernels run here: their products are instructions of Hopper GPUs alone."""
    return cuda and torch.cuda.get_device_capability()[0] == 9 and find_spec("triton") is not None


def accelerate(model: RET, compiled: bool, fused: bool) -> None:
    """Put faster callables in the place of methods: compiled, or written for the GPU."""
    if fused:
        from cellular.decoders.ret.fused import fused_states

        setattr(model, "states", fused_states(model))  # noqa: B010  (mypy: a method)
    elif compiled:
        torch._dynamo.config.recompile_limit = 64
        # For each width by itself: with symbolic shapes torch 2.11 fails on a GPU.
        for name in ("inputs", "layer"):
            setattr(model, name, torch.compile(getattr(model, name), dynamic=False))


def flops_per_piece(model: RET) -> float:
    """Of forward and backward, in texts of 31 pieces; in those of any bucket it is up to 3 % more."""
    return flops_per_text(model, 31) / 31


def flops_per_text(model: RET, pieces: int) -> float:
    """Of forward and backward over a text of so many pieces: the products with weights at every position, the
    prefix's included, and attention's with the positions that each sees.

    As Chowdhery et al. 2022, PaLM, appendix B, but for what a causal mask leaves out.
    """
    positions = model.config.prefix_states + pieces - 1
    weights = _layer_weights(model) * positions + model.pieces.numel() * pieces + model.projection.numel()
    seen = model.config.applications * positions * (positions + 1) / 2
    return 6.0 * weights + 3 * 4.0 * HIDDEN * seen


def _layer_weights(model: RET) -> int:
    """Each as often as it is applied."""
    layer = model.query_key_value, model.attention_out, model.mlp_in, model.mlp_out
    return sum(weight.numel() for weight in layer) * model.config.applications


class TextSource(BucketSource[Texts]):
    """Batches of texts with their embeddings, plain or rewarded."""

    def __init__(
        self,
        train: Callable[[], Iterable[pa.Table]],
        held_out: Callable[[], Iterable[pa.Table]],
        config: TextLoopConfig,
        variation: VariationConfig,
        device: torch.device,
        reward: RewardedTexts | None = None,
    ) -> None:
        self._variation, self._reward = variation, reward
        copies = reward.rows if reward else 1
        super().__init__(train, held_out, config, device, texts_of, join_texts, copies)

    def batch(self, held: Texts, rows: Rows) -> Batch:
        """As varied, and with a reward as samples."""
        batch = make_batch(held, rows, self._variation)
        return self._reward(batch) if self._reward else batch

    def held_out_batch(self, held: Texts, rows: Rows) -> Batch:
        """As the texts are."""
        return make_batch(held, rows)
