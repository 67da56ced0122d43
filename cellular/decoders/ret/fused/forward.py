"""The way forward: what enters, and one application of the layer."""

import torch
from torch import Tensor

from cellular.decoders.ret.fused.attention import attend_kernel
from cellular.decoders.ret.fused.inputs import enter_kernel
from cellular.decoders.ret.fused.mlp import perceive_kernel
from cellular.decoders.ret.fused.tiles import Inputs, Layout, Saved, Weights, head_tiles, tiles
from cellular.decoders.ret.model import HEADS, HIDDEN, INNER

# From times of these and others on an H200.
_ENTER_ROWS = 16
_BLOCK, _CHUNK = 64, 32


def enter(layout: Layout, inputs: Inputs, step_D: Tensor, x_ND: Tensor, scale_N: Tensor) -> None:
    """Fill the input of the first application, and its scale."""
    enter_kernel[(layout.rows // _ENTER_ROWS,)](
        *inputs.tensors(),
        step_D,
        x_ND,
        scale_N,
        layout.batch,
        layout.positions,
        D=HIDDEN,
        P=inputs.prefix_states,
        ROWS=_ENTER_ROWS,
    )


def advance(
    layout: Layout,
    saved: Saved,
    weights: Weights,
    turn_RK: Tensor,
    step_D: Tensor,
    x2_ND: Tensor,
    scale2_N: Tensor,
) -> None:
    """Fill `saved` but for its input; x2 and its scale get the output, to which the next step is added."""
    torch.mm(saved.x_ND, weights.query_key_value.T, out=saved.qkv_NC)
    attend_kernel[(HEADS, layout.groups)](
        head_tiles(saved.qkv_NC, layout.block),
        head_tiles(turn_RK, layout.block),
        saved.scale_N,
        saved.y_ND,
        layout.positions,
        layout.group,
        layout.rows,
        **layout.attention,
    )
    perceive_kernel[(layout.rows // _BLOCK,)](
        tiles(saved.x_ND, _BLOCK, HIDDEN),
        tiles(saved.y_ND, _BLOCK, _CHUNK),
        tiles(weights.attention_out, HIDDEN, _CHUNK),
        tiles(weights.mlp_in, _CHUNK, HIDDEN),
        tiles(weights.mlp_out, HIDDEN, _CHUNK),
        step_D,
        tiles(saved.x1_ND, _BLOCK, HIDDEN),
        tiles(x2_ND, _BLOCK, HIDDEN),
        tiles(saved.squared_NF, _BLOCK, _CHUNK),
        saved.scale1_N,
        scale2_N,
        D=HIDDEN,
        INNER=INNER,
        BLOCK=_BLOCK,
        CHUNK=_CHUNK,
        num_warps=4,
        num_stages=3,
    )
