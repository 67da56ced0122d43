"""The output layer and the loss, both ways, without writing the scores of the pieces.

Rows are the T positions of B texts, of which the last L have a target. `scale` is one over the root mean
square of a row; the norm's gain is part of the table.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cellular.decoders.ret.fused.norm import EPSILON, inverse_rms, norm_backward
from cellular.decoders.ret.fused.tiles import summed_outer, tiles
from cellular.decoders.ret.model import HIDDEN, VOCABULARY

_BLOCK, _CHUNK, _BACKWARD_CHUNK = 64, 64, 32
_SIZES = {"D": HIDDEN, "V": VOCABULARY, "BLOCK": _BLOCK, "num_warps": 4}


@triton.jit
def _target(target_ptr, weight_ptr, row, rows, positions, length):
    """(R,) pieces that are to follow and what they weigh: nothing where there is none."""
    place = row % positions - (positions - length)
    known = (row < rows) & (place >= 0)
    place += row // positions * length
    target = tl.load(target_ptr + place, mask=known, other=0)
    return target, tl.load(weight_ptr + place, mask=known, other=0.0)


@triton.jit(do_not_specialize=["rows", "positions", "length"])
def likelihood_kernel(
    x, table, loss_ptr, bias_ptr, target_ptr, weight_ptr, log_sum_ptr, rows, positions, length,
    D: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Logarithms of the rows' sums of exponentials, and the sum of the weighted losses of BLOCK rows."""
    start = tl.program_id(0) * BLOCK
    row, piece = start + tl.arange(0, BLOCK), tl.arange(0, V)
    score = tl.zeros((BLOCK, V), tl.float32)
    square = tl.zeros((BLOCK,), tl.float32)
    for part in range(0, D, CHUNK):
        chunk = x.load([start, part])
        score = tl.dot(chunk, table.load([0, part]).T, score)
        square += tl.sum(chunk.to(tl.float32) * chunk.to(tl.float32), 1)
    score *= (tl.rsqrt(square / D + EPSILON) * (4 / D**0.5))[:, None]
    score += tl.load(bias_ptr + piece)
    top = tl.max(score, 1)
    log_sum = top + tl.log(tl.sum(tl.exp(score - top[:, None]), 1))
    target, weight = _target(target_ptr, weight_ptr, row, rows, positions, length)
    own = tl.sum(tl.where(piece == target[:, None], score, 0.0), 1)
    tl.store(log_sum_ptr + row, log_sum, mask=row < rows)
    tl.store(loss_ptr + tl.program_id(0), tl.sum(weight * (log_sum - own), 0))


@triton.jit(do_not_specialize=["rows", "positions", "length"])
def likelihood_backward_kernel(
    x, table, d_loss_ptr, d_score, d_bias_ptr, d_x,
    bias_ptr, target_ptr, weight_ptr, log_sum_ptr, rows, positions, length,
    D: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients of x, of its product with the table, and of the bias as the sum over BLOCK rows."""
    start = tl.program_id(0) * BLOCK
    row = start + tl.arange(0, BLOCK)
    whole = x.load([start, 0]).to(tl.float32)
    scale = inverse_rms(whole, D)[:, None]
    x_hat = (whole * scale).to(x.dtype)
    target, weight = _target(target_ptr, weight_ptr, row, rows, positions, length)
    weight = (weight * tl.load(d_loss_ptr))[:, None]
    log_sum = tl.load(log_sum_ptr + row, mask=row < rows, other=0.0)[:, None]
    total = tl.zeros((BLOCK, D), tl.float32)
    for part in range(0, V, CHUNK):
        piece = part + tl.arange(0, CHUNK)
        tile = table.load([part, 0])
        score = tl.dot(x_hat, tile.T) * (4 / D**0.5) + tl.load(bias_ptr + piece)
        d = (tl.exp(score - log_sum) - tl.where(piece == target[:, None], 1.0, 0.0)) * weight
        tl.store(d_bias_ptr + tl.program_id(0) * V + piece, tl.sum(d, 0))
        narrow = (d * (scale * (4 / D**0.5))).to(d_score.dtype)
        d_score.store([start, part], narrow)
        total = tl.dot(narrow, tile, total)
    d_x.store([start, 0], norm_backward(total, x.load([start, 0]), scale, D).to(d_x.dtype))


class SummedLikelihood(torch.autograd.Function):
    """Weighted sum of the cross entropies, float32.

    Args:
        x_BTD: (B, T, D) states.
        table_VD: (V, D) of the same type, the gain of the last norm multiplied in.
        bias_V: (V,) float32.
        targets_BL: (B, L) int64.
        weights_BL: (B, L) float32.
    """

    @staticmethod
    def forward(
        ctx: Any, x_BTD: Tensor, table_VD: Tensor, bias_V: Tensor, targets_BL: Tensor, weights_BL: Tensor
    ) -> Tensor:
        """The sum, a scalar."""
        rows = x_BTD.shape[0] * x_BTD.shape[1]
        x_ND = x_BTD.reshape(rows, HIDDEN)
        loss_G = bias_V.new_empty(triton.cdiv(rows, _BLOCK))
        given = bias_V, targets_BL, weights_BL, bias_V.new_empty(rows)
        ctx.shape = rows, x_BTD.shape[1], targets_BL.shape[1]
        likelihood_kernel[(len(loss_G),)](
            tiles(x_ND, _BLOCK, _CHUNK),
            tiles(table_VD, VOCABULARY, _CHUNK),
            loss_G,
            *given,
            *ctx.shape,
            **_SIZES,
            CHUNK=_CHUNK,
            num_stages=2,
        )
        ctx.save_for_backward(x_BTD, table_VD, *given)
        return loss_G.sum()

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the states, the table and the bias."""
        x_BTD, table_VD, *given = ctx.saved_tensors
        x_ND = x_BTD.reshape(-1, HIDDEN)
        d_score_NV, d_x_ND = x_ND.new_empty(len(x_ND), VOCABULARY), torch.empty_like(x_ND)
        d_bias_GV = given[0].new_empty(triton.cdiv(len(x_ND), _BLOCK), VOCABULARY)
        likelihood_backward_kernel[(len(d_bias_GV),)](
            tiles(x_ND, _BLOCK, HIDDEN),
            tiles(table_VD, _BACKWARD_CHUNK, HIDDEN),
            d_outputs[0],
            tiles(d_score_NV, _BLOCK, _BACKWARD_CHUNK),
            d_bias_GV,
            tiles(d_x_ND, _BLOCK, HIDDEN),
            *given,
            *ctx.shape,
            **_SIZES,
            CHUNK=_BACKWARD_CHUNK,
            num_stages=3,
        )
        d_table_VD = summed_outer(d_score_NV, x_ND)
        return d_x_ND.view_as(x_BTD), d_table_VD, d_bias_GV.sum(0), None, None
