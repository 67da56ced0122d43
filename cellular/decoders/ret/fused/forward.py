"""One application of the layer: three kernels."""

import triton
from torch import Tensor

from cellular.decoders.ret.fused.attention import attend_kernel, project_kernel
from cellular.decoders.ret.fused.mlp import perceive_kernel
from cellular.decoders.ret.fused.tiles import HALF, KEY, Rotary, Saved, Tiling, Weights, group_rows, tiles
from cellular.decoders.ret.model import HEADS, HIDDEN, INNER

# From times of these and others on an H200.
_PROJECT = Tiling(64, warps=4)
_ATTEND = Tiling(64, warps=4)
_ATTEND_LONG = Tiling(128)
_PERCEIVE = Tiling(64, chunk=32, warps=4)


def advance(
    saved: Saved, weights: Weights, rotary: Rotary, step_D: Tensor, x2_ND: Tensor, scale2_N: Tensor
) -> None:
    """Fill `saved` but for its input; x2 and its scale get the output, to which the next step is added."""
    _project(saved, weights.query_key_value, rotary)
    _attend(saved, len(rotary.cosine))
    _perceive(saved, weights, step_D, x2_ND, scale2_N)


def _project(saved: Saved, weight: Tensor, rotary: Rotary) -> None:
    tile, rows = _PROJECT, len(saved.x_ND)
    project_kernel[(3 * HEADS, triton.cdiv(rows, tile.block))](
        tiles(saved.x_ND, tile.block, tile.chunk),
        tiles(weight, HALF, tile.chunk),
        saved.scale_N,
        rotary.cosine,
        rotary.sine,
        tiles(saved.qkv_NC, tile.block, HALF),
        saved.head_scale_N4,
        rows,
        len(rotary.cosine),
        D=HIDDEN,
        HALF=HALF,
        BLOCK=tile.block,
        CHUNK=tile.chunk,
        **tile.options,
    )


def _attend(saved: Saved, positions: int) -> None:
    tile = _ATTEND if positions <= _ATTEND.block else _ATTEND_LONG
    rows, group = len(saved.y_ND), group_rows(positions, tile.block)
    attend_kernel[(triton.cdiv(rows, group), HEADS)](
        saved.qkv_NC,
        saved.y_ND,
        rows,
        positions,
        group,
        KEY**-0.5,
        D=HIDDEN,
        K=KEY,
        BLOCK=tile.block,
        **tile.options,
    )


def _perceive(saved: Saved, weights: Weights, step_D: Tensor, x2_ND: Tensor, scale2_N: Tensor) -> None:
    tile, rows = _PERCEIVE, len(saved.x_ND)
    perceive_kernel[(triton.cdiv(rows, tile.block),)](
        tiles(saved.x_ND, tile.block, HIDDEN),
        tiles(saved.y_ND, tile.block, tile.chunk),
        tiles(weights.attention_out, HIDDEN, tile.chunk),
        tiles(weights.mlp_in, tile.chunk, HIDDEN),
        tiles(weights.mlp_out, HIDDEN, tile.chunk),
        step_D,
        tiles(saved.x1_ND, tile.block, HIDDEN),
        tiles(x2_ND, tile.block, HIDDEN),
        tiles(saved.squared_NF, tile.block, tile.chunk),
        saved.scale1_N,
        scale2_N,
        rows,
        D=HIDDEN,
        INNER=INNER,
        BLOCK=tile.block,
        CHUNK=tile.chunk,
        **tile.options,
    )
