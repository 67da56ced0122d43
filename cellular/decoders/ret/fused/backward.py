"""The way back through one application, and the gradients of the weights through all."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from cellular.decoders.ret.fused.attention import attend_backward_kernel
from cellular.decoders.ret.fused.mlp import inner_backward_kernel, norm_backward_kernel
from cellular.decoders.ret.fused.tiles import HALF, KEY, Rotary, Saved, Tiling, Weights, group_rows, tiles
from cellular.decoders.ret.model import HEADS, HIDDEN, INNER

# From times of these and others on an H200.
_INNER = Tiling(128)
_INNER_WIDTH = 128
_NORM = Tiling(128)
_ATTEND = Tiling(64, warps=4)
_ATTEND_LONG = Tiling(128)


@dataclass(frozen=True)
class Gradients:
    """Of what the matrices were multiplied with and gave; with a leading axis as `Saved`.

    Those before a norm are times the row's scale: so the product with the row before its norm gives the
    gradient of the weights, and the normalised row is never stored.
    """

    d_qkv_NC: Tensor
    d_x1_ND: Tensor
    d_inner_NF: Tensor

    @staticmethod
    def empty(saved: Saved) -> "Gradients":
        """Room for those of all applications."""
        return Gradients(
            torch.empty_like(saved.qkv_NC), torch.empty_like(saved.x1_ND), torch.empty_like(saved.squared_NF)
        )

    def of(self, application: int) -> "Gradients":
        """One application's."""
        return Gradients(self.d_qkv_NC[application], self.d_x1_ND[application], self.d_inner_NF[application])


def retreat(
    saved: Saved, weights: Weights, rotary: Rotary, gradients: Gradients, d_x2_ND: Tensor, d_x_ND: Tensor
) -> None:
    """From the gradient of an application's output to that of its input, by way of `gradients`."""
    _inner(saved, weights.mlp_out, d_x2_ND, gradients.d_inner_NF)
    _norm(gradients.d_inner_NF, saved.x1_ND, saved.scale1_N, d_x2_ND, weights.mlp_in, gradients.d_x1_ND)
    dy_ND = gradients.d_x1_ND @ weights.attention_out
    _attend(saved, rotary, dy_ND, gradients.d_qkv_NC)
    _norm(gradients.d_qkv_NC, saved.x_ND, saved.scale_N, gradients.d_x1_ND, weights.query_key_value, d_x_ND)


def weight_gradients(saved: Saved, gradients: Gradients, d_x_AND: Tensor) -> Weights:
    """Sums over all rows and applications, in float32 until the end.

    Args:
        saved, gradients: of all applications.
        d_x_AND: (A + 1, N, D) gradients of each application's input, and of the last one's output.
    """
    return Weights(
        query_key_value=_outer(gradients.d_qkv_NC, saved.x_ND[:-1]),
        attention_out=_outer(gradients.d_x1_ND, saved.y_ND),
        mlp_in=_outer(gradients.d_inner_NF, saved.x1_ND),
        mlp_out=_outer(d_x_AND[1:], saved.squared_NF),
    )


def _outer(d_out: Tensor, inputs: Tensor) -> Tensor:
    d_out, inputs = d_out.flatten(0, 1), inputs.flatten(0, 1)
    if d_out.is_cuda:  # a result in bf16 would let cuBLAS add its partial sums in bf16
        return torch.mm(d_out.T, inputs, out_dtype=torch.float32)
    return d_out.T @ inputs


def _inner(saved: Saved, weight: Tensor, d_x2_ND: Tensor, d_inner_NF: Tensor) -> None:
    tile, rows = _INNER, len(d_x2_ND)
    inner_backward_kernel[(INNER // _INNER_WIDTH, triton.cdiv(rows, tile.block))](
        tiles(d_x2_ND, tile.block, tile.chunk),
        tiles(weight, tile.chunk, _INNER_WIDTH),
        saved.scale1_N,
        tiles(saved.squared_NF, tile.block, _INNER_WIDTH),
        tiles(d_inner_NF, tile.block, _INNER_WIDTH),
        rows,
        D=HIDDEN,
        BLOCK=tile.block,
        WIDTH=_INNER_WIDTH,
        CHUNK=tile.chunk,
        **tile.options,
    )


def _norm(
    d_out: Tensor, x_ND: Tensor, scale_N: Tensor, residual_ND: Tensor, weight: Tensor, d_x_ND: Tensor
) -> None:
    tile, (rows, width) = _NORM, d_out.shape
    norm_backward_kernel[(triton.cdiv(rows, tile.block),)](
        tiles(d_out, tile.block, tile.chunk),
        tiles(x_ND, tile.block, HIDDEN),
        scale_N,
        tiles(residual_ND, tile.block, HIDDEN),
        tiles(weight, tile.chunk, HIDDEN),
        tiles(d_x_ND, tile.block, HIDDEN),
        rows,
        K=width,
        D=HIDDEN,
        BLOCK=tile.block,
        CHUNK=tile.chunk,
        **tile.options,
    )


def _attend(saved: Saved, rotary: Rotary, dy_ND: Tensor, d_qkv_NC: Tensor) -> None:
    positions = len(rotary.cosine)
    tile = _ATTEND if positions <= _ATTEND.block else _ATTEND_LONG
    rows, group = len(dy_ND), group_rows(positions, tile.block)
    attend_backward_kernel[(triton.cdiv(rows, group), HEADS)](
        saved.qkv_NC,
        dy_ND,
        rotary.cosine,
        rotary.sine,
        saved.scale_N,
        saved.head_scale_N4,
        d_qkv_NC,
        rows,
        positions,
        group,
        KEY**-0.5,
        D=HIDDEN,
        HALF=HALF,
        BLOCK=tile.block,
        **tile.options,
    )
