"""The way back through one application and through what entered, and the gradients of the weights."""

from dataclasses import dataclass, fields

import torch
import triton
from torch import Tensor

from cellular.decoders.ret.fused.attention import attend_backward_kernel
from cellular.decoders.ret.fused.inputs import enter_backward_kernel, table_backward_kernel
from cellular.decoders.ret.fused.mlp import perceive_backward_kernel, project_backward_kernel
from cellular.decoders.ret.fused.tiles import (
    ALIGNMENT,
    Inputs,
    Layout,
    Saved,
    Weights,
    head_tiles,
    summed_outer,
    tiles,
)
from cellular.decoders.ret.model import HEADS, HIDDEN, INNER, VOCABULARY

# From times of these and others on an H200.
_BLOCK, _CHUNK = 64, 32
_WIDTH, _PROJECT_CHUNK = 128, 64
_ENTER_ROWS = 32
_TABLE_WIDTH, _TABLE_ROWS, _TABLE_SHARES = 64, 64, 64


@dataclass(frozen=True)
class Gradients:
    """Of what the matrices were multiplied with and gave; with a leading axis as `Saved`.

    Those before a norm are times the row's scale: so the product with the row before its norm gives the
    gradient of the weights, and the normalised row is never stored.
    """

    d_x_ND: Tensor
    d_qkv_NC: Tensor
    d_x1_ND: Tensor
    d_inner_NF: Tensor
    d_step_GD: Tensor

    @staticmethod
    def empty(saved: Saved) -> "Gradients":
        """Room for those of all applications; of steps, the sums over G tiles of rows, float32."""
        applications, rows, _ = saved.y_ND.shape
        d_step_AGD = saved.scale_N.new_empty(applications, rows // ALIGNMENT, HIDDEN)
        room = torch.empty_like
        return Gradients(
            room(saved.y_ND), room(saved.qkv_NC), room(saved.x1_ND), room(saved.squared_NF), d_step_AGD
        )

    def of(self, application: int) -> "Gradients":
        """One application's."""
        return Gradients(*(getattr(self, field.name)[application] for field in fields(self)))


@dataclass(frozen=True)
class Scratch:
    """What one application needs for its own way back."""

    dy_ND: Tensor
    product_NH: Tensor

    @staticmethod
    def empty(saved: Saved) -> "Scratch":
        """Room for it."""
        return Scratch(torch.empty_like(saved.y_ND[0]), saved.scale_N.new_empty(saved.y_ND.shape[1], HEADS))


def retreat(
    layout: Layout,
    saved: Saved,
    weights: Weights,
    turn_RK: Tensor,
    d_x2_ND: Tensor,
    gradients: Gradients,
    scratch: Scratch,
) -> None:
    """From the gradient of an application's output to `gradients`."""
    perceive_backward_kernel[(layout.rows // _BLOCK,)](
        tiles(d_x2_ND, _BLOCK, HIDDEN),
        tiles(weights.mlp_out, HIDDEN, _CHUNK),
        tiles(weights.mlp_in, _CHUNK, HIDDEN),
        tiles(saved.x1_ND, _BLOCK, HIDDEN),
        saved.scale1_N,
        tiles(saved.squared_NF, _BLOCK, _CHUNK),
        tiles(gradients.d_inner_NF, _BLOCK, _CHUNK),
        tiles(gradients.d_x1_ND, _BLOCK, HIDDEN),
        D=HIDDEN,
        INNER=INNER,
        BLOCK=_BLOCK,
        CHUNK=_CHUNK,
        num_warps=4,
        num_stages=3,
    )
    torch.mm(gradients.d_x1_ND, weights.attention_out, out=scratch.dy_ND)
    attend_backward_kernel[(HEADS, layout.groups)](
        head_tiles(saved.qkv_NC, layout.block),
        head_tiles(scratch.dy_ND, layout.block),
        head_tiles(turn_RK, layout.block),
        saved.scale_N,
        gradients.d_qkv_NC,
        scratch.product_NH,
        layout.positions,
        layout.group,
        layout.rows,
        HEADS=HEADS,
        **layout.attention,
    )
    project_backward_kernel[(HIDDEN // _WIDTH, layout.rows // ALIGNMENT)](
        tiles(gradients.d_qkv_NC, ALIGNMENT, _PROJECT_CHUNK),
        tiles(weights.query_key_value, _PROJECT_CHUNK, _WIDTH),
        tiles(saved.x_ND, ALIGNMENT, _WIDTH),
        saved.scale_N,
        scratch.product_NH,
        tiles(gradients.d_x1_ND, ALIGNMENT, _WIDTH),
        tiles(gradients.d_x_ND, ALIGNMENT, _WIDTH),
        gradients.d_step_GD,
        D=HIDDEN,
        HEADS=HEADS,
        BLOCK=ALIGNMENT,
        WIDTH=_WIDTH,
        CHUNK=_PROJECT_CHUNK,
        num_warps=8,
        num_stages=3,
    )


def enter_backward(layout: Layout, inputs: Inputs, d_x_ND: Tensor) -> Inputs:
    """Gradients of what entered, float32; the pieces' numbers have none and stand as they are."""
    states, gain_D = inputs.prefix_states, inputs.prefix_gain.float()
    count = inputs.pieces.numel()
    d_input_MD = d_x_ND.new_empty(count, HIDDEN)
    d_prefix_BPD = torch.empty_like(inputs.prefix, dtype=torch.float32)
    d_mean_BD, d_norm_BD = d_prefix_BPD.new_empty(2, layout.batch, HIDDEN)
    enter_backward_kernel[(layout.batch,)](
        *inputs.tensors(),
        d_x_ND,
        d_input_MD,
        d_prefix_BPD,
        d_mean_BD,
        d_norm_BD,
        positions=layout.positions,
        D=HIDDEN,
        P=states,
        ROWS=_ENTER_ROWS,
        num_warps=2,
    )
    d_table_SVD = d_prefix_BPD.new_empty(_TABLE_SHARES, VOCABULARY, HIDDEN)
    table_backward_kernel[(VOCABULARY // _TABLE_WIDTH, _TABLE_SHARES)](
        tiles(d_input_MD, _TABLE_ROWS, HIDDEN),
        inputs.pieces,
        d_table_SVD,
        count,
        V=VOCABULARY,
        D=HIDDEN,
        WIDTH=_TABLE_WIDTH,
        ROWS=_TABLE_ROWS,
        STEPS=triton.cdiv(count, _TABLE_SHARES * _TABLE_ROWS),
        num_warps=4,
        num_stages=3,
    )
    d_prefix_BPD += (gain_D * d_mean_BD / states)[:, None]
    d_gain_D = (inputs.prefix.mean(1, dtype=torch.float32) * d_mean_BD).sum(0)
    return Inputs(d_prefix_BPD, inputs.pieces, d_table_SVD.sum(0), d_gain_D, d_norm_BD.sum(0))


def weight_gradients(saved: Saved, gradients: Gradients, d_last_ND: Tensor) -> Weights:
    """Sums over all rows and applications, in float32 until the end.

    Args:
        saved, gradients: of all applications.
        d_last_ND: gradient of the last application's output; that of others is the next one's input's.
    """
    mlp_out_DF = summed_outer(d_last_ND, saved.squared_NF[-1])
    if len(saved.y_ND) > 1:
        mlp_out_DF += summed_outer(gradients.d_x_ND[1:], saved.squared_NF[:-1])
    return Weights(
        query_key_value=summed_outer(gradients.d_qkv_NC, saved.x_ND[:-1]),
        attention_out=summed_outer(gradients.d_x1_ND, saved.y_ND),
        mlp_in=summed_outer(gradients.d_inner_NF, saved.x1_ND),
        mlp_out=mlp_out_DF,
    )
