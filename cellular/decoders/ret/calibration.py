"""Rounding and pruning after training: the error of each weight is made good by the weights that follow.

Frantar et al. 2022, GPTQ, for rounding, and Frantar & Alistarh 2023, SparseGPT, for pruning. Both minimise
the change of a matrix's outputs over inputs that it really gets. Here an input counts by the gradient of the
loss at the output it leads to, as in Kim et al. 2025, GuidedQuant: the one layer works at eight depths, which
matter differently. The inputs come from texts that the decoder itself writes: no corpus is needed.

Shapes as in `model` and `quantization`; N inputs of a matrix.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cellular.decoders.ret.generation import MAX_PIECES, TorchEngine
from cellular.decoders.ret.model import RET
from cellular.decoders.ret.quantization import Bits, QuantizedMatrix, round_to_grid, search_scales
from cellular.decoders.ret.sparsity import largest
from cellular.decoders.ret.weights import BITS, Precision, matrices, round_weights
from cellular.types import FloatArray

_DAMPING = 0.1  # of the mean of the diagonal: inputs of a few hundred texts do not span every direction
_TEXTS = 32  # in a pass


class Batch(NamedTuple):
    """Texts of one length."""

    embeddings_BE: Tensor
    pieces_BL: Tensor


def own_texts(model: RET, embeddings_NE: FloatArray) -> list[Batch]:
    """What a model writes for embeddings, (N, E) float32 of unit length, in batches without padding."""
    texts = TorchEngine(model).greedy(embeddings_NE, MAX_PIECES)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    batches = []
    for _, group in groupby(order, key=lambda row: len(texts[row])):
        for rows in _chunks(list(group), _TEXTS):
            pieces_BL = torch.stack([torch.from_numpy(texts[row]).long() for row in rows])
            batches.append(Batch(torch.from_numpy(embeddings_NE[rows]), pieces_BL))
    return batches


def _chunks(rows: list[int], size: int) -> Iterator[list[int]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def loss_of(model: RET, batches: Sequence[Batch]) -> float:
    """Mean negative log-likelihood of texts, END included, in nats a piece."""
    with torch.no_grad():
        total = sum(float(_total_loss(model, batch)) for batch in batches)
    return total / sum(batch.pieces_BL.shape[0] * (batch.pieces_BL.shape[1] + 1) for batch in batches)


def _total_loss(model: RET, batch: Batch) -> Tensor:
    targets_BT = F.pad(batch.pieces_BL, (0, 1))  # END is 0
    logits_BTV = model(*batch)
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum")


class InputMoments(TorchFunctionMode):
    """While it is active, sums up the outer products of what each matrix is multiplied with.

    Args:
        weights: name → (R, C) matrix, found again by its memory in calls of `linear`.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {weight.data_ptr(): name for name, weight in weights.items()}
        columns = {name: weight.shape[1] for name, weight in weights.items()}
        self.moments = {
            name: torch.zeros(width, width, dtype=torch.float64) for name, width in columns.items()
        }
        """name → (C, C) float64"""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = self._names.get(args[1].data_ptr()) if func is F.linear else None
        if name is not None:
            inputs = args[0].detach()
            output.register_hook(lambda gradient: self._add(name, inputs, gradient))
        return output

    def _add(self, name: str, inputs: Tensor, gradient: Tensor) -> None:
        weighed_NC = (inputs * gradient.norm(dim=-1, keepdim=True)).flatten(0, -2)
        self.moments[name] += weighed_NC.T @ weighed_NC


def input_moments(model: RET, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Second moments of every matrix's inputs, (C, C) float64, weighed by the loss's gradients."""
    frozen = copy.deepcopy(model).requires_grad_(False)
    moments = InputMoments(matrices(frozen))
    for batch in batches:
        embeddings_BE = batch.embeddings_BE.clone().requires_grad_()  # for gradients at every output
        with moments:
            loss = _total_loss(frozen, batch._replace(embeddings_BE=embeddings_BE))
        loss.backward()  # type: ignore[no-untyped-call]
    return moments.moments


def calibrate(model: RET, batches: Sequence[Batch], precision: Precision, sparsity: float = 0.0) -> RET:
    """A model with matrices as a precision stores them, pruned, and compensated for both.

    Args:
        model: of any precision; weights that are zero stay zero.
        batches: texts of a few hundred embeddings.
        precision: of the weights that are left.
        sparsity: share of zeros in each matrix.
    """
    result = copy.deepcopy(model).requires_grad_(False)
    moments = input_moments(model, batches)
    for name, weight_RC in matrices(result).items():
        bits = BITS.get(precision)
        weight_RC.copy_(compensate(weight_RC, moments[name], bits, sparsity))
        weight_RC.copy_(round_weights(weight_RC, precision))
    return result


def compensate(weight_RC: Tensor, moment_CC: Tensor, bits: Bits | None, sparsity: float = 0.0) -> Tensor:
    """(R, C) float32: rounded and pruned column by column, each one's error passed on to those after it.

    Args:
        weight_RC: (R, C) float32.
        moment_CC: (C, C) float64, sum of the inputs' outer products.
        bits: 4 or 8; None: weights are pruned only.
        sparsity: share of zeros.
    """
    damping = _DAMPING * moment_CC.diagonal().mean().clamp_min(1e-30)
    damped_CC = moment_CC + damping * torch.eye(len(moment_CC), dtype=moment_CC.dtype)
    inverse_CC = torch.cholesky_inverse(torch.linalg.cholesky(damped_CC))
    pass_on_CC = torch.linalg.cholesky(inverse_CC, upper=True).float()
    kept_RC = largest(weight_RC / pass_on_CC.diagonal(), sparsity) & (weight_RC != 0)
    store = _storing(weight_RC * kept_RC, bits, damped_CC.diagonal().float())
    wanted_RC, stored_RC = weight_RC.clone(), torch.empty_like(weight_RC)
    for column in range(len(moment_CC)):
        stored_RC[:, column] = store(wanted_RC[:, column] * kept_RC[:, column], column)
        error_R = (wanted_RC[:, column] - stored_RC[:, column]) / pass_on_CC[column, column]
        wanted_RC[:, column + 1 :] -= torch.outer(error_R, pass_on_CC[column, column + 1 :])
    return stored_RC


def _storing(weight_RC: Tensor, bits: Bits | None, importance_C: Tensor) -> Callable[[Tensor, int], Tensor]:
    """From a column, (R,), and its number to what is stored of it: the nearest values, on fixed scales."""
    if bits is None:
        return lambda column_R, number: column_R
    scales_RG = search_scales(weight_RC, bits, importance_C=importance_C)
    size = weight_RC.shape[1] // scales_RG.shape[1]

    def store(column_R: Tensor, number: int) -> Tensor:
        scale_R1 = scales_RG[:, number // size, None]
        return QuantizedMatrix(round_to_grid(column_R[:, None], scale_R1, bits), scale_R1).dequantise()[:, 0]

    return store
