"""All applications of the layer, forward and backward, by Triton kernels.

    model.apply_layer = fused_layers(model)     # a callable from states to states, (B, T, D) bf16, T <= 128

`RET.apply_layer` is the reference: outputs and gradients are at least as near to fp32 as its bf16 ones.
Needs a GPU with TMA (compute capability 9). Only here is Triton imported.

At a width of 256 the layer is bound by memory, not by arithmetic. Rows of 256 bf16 (512 bytes) that a
position moves in one application, if nothing stays in the cache:

    forward    project 1 + 3, attend 3 + 1, output and MLP 2 + 3.5                            13.5
    backward   MLP 4 + 4.5, attention's output 2, attend 4 + 3, project 3 + 3                 23.5
    weights    4 products: 4 + 2 + 2.5 + 2.5                                                  11

48 rows are 24.6 kB, 5.7 ns at the 4.3 TB/s of an H200; 30 % of its peak would be 9.4 ns. Hence: a norm is one
number a row, applied after the product, its gain part of the weights; the softmax and rotations stay in
registers; only what the weights' gradients need is stored; these are four products over all applications.
First figures: docs/experiments.md.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cellular.decoders.ret.fused.backward import Gradients, retreat, weight_gradients
from cellular.decoders.ret.fused.forward import advance
from cellular.decoders.ret.fused.tiles import Rotary, Saved, Weights
from cellular.decoders.ret.model import HIDDEN, RET, rotary_table

MAX_POSITIONS = 128


def fused_layers(model: RET) -> Callable[[Tensor], Tensor]:
    """What computes `model.apply_layer`, differentiable by the states and the model's weights.

    It reads the weights at each call and waits for nothing: it can go into a CUDA graph.
    """

    def apply_layer(x_BTD: Tensor) -> Tensor:
        batch, positions, _ = x_BTD.shape
        if positions > MAX_POSITIONS:
            raise ValueError(f"need at most {MAX_POSITIONS} positions, not {positions}")
        dtype = x_BTD.dtype
        x_ND: Tensor = _Applications.apply(
            x_BTD.reshape(batch * positions, HIDDEN).contiguous(),
            model.steps().float(),
            (model.query_key_value * model.attention_norm).to(dtype),
            model.attention_out.to(dtype),
            (model.mlp_in * model.mlp_norm).to(dtype),
            model.mlp_out.to(dtype),
            *_angles(positions, x_BTD.device),
        )
        return x_ND.view(batch, positions, HIDDEN)

    return apply_layer


def _angles(positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32, of one component of each pair that is rotated."""
    cosine_TK, sine_TK = rotary_table(positions, device, torch.float32)
    half = cosine_TK.shape[1] // 2
    return cosine_TK[:, :half].contiguous(), sine_TK[:, :half].contiguous()


class _Applications(torch.autograd.Function):
    """The layer's applications to N rows; the argument order is that of `fused_layers`."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, steps_AD: Tensor, *matrices_and_angles: Tensor) -> Tensor:
        applications = len(steps_AD)
        weights, rotary = Weights(*matrices_and_angles[:4]), Rotary(*matrices_and_angles[4:])
        saved = Saved.empty(applications, x_ND)
        x_AND, scale_AN = saved.x_ND, saved.scale_N
        torch.add(x_ND, steps_AD[0].to(x_ND.dtype), out=x_AND[0])
        norm_N = torch.linalg.vector_norm(x_AND[0], dim=1, dtype=torch.float32)
        scale_AN[0] = (norm_N.square() / HIDDEN + 1e-6).rsqrt()
        added_AD = torch.cat([steps_AD[1:], torch.zeros_like(steps_AD[:1])])
        for number in range(applications):
            following = x_AND[number + 1], scale_AN[number + 1]
            advance(saved.of(number), weights, rotary, added_AD[number], *following)
        ctx.save_for_backward(*saved.tensors(), *matrices_and_angles)
        return x_AND[applications]

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        saved, weights, rotary = Saved(*tensors[:-6]), Weights(*tensors[-6:-2]), Rotary(*tensors[-2:])
        gradients, d_x_AND = Gradients.empty(saved), torch.empty_like(saved.x_ND)
        d_x_AND[-1] = d_outputs[0]
        for number in reversed(range(len(d_x_AND) - 1)):
            of_this = saved.of(number), weights, rotary, gradients.of(number)
            retreat(*of_this, d_x_AND[number + 1], d_x_AND[number])
        d_weights = weight_gradients(saved, gradients, d_x_AND)
        d_steps_AD = d_x_AND[:-1].sum(1, dtype=torch.float32)
        return d_x_AND[0], d_steps_AD, *vars(d_weights).values(), None, None
