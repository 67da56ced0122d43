"""RET's training pass by our kernels: what enters, all applications of the layer, the loss, and back.

    model.states = fused_states(model)     # (B, E) embeddings, (B, L) pieces → (B, T, D) states, T <= 128
    loss = fused_likelihood(model, batch)  # of those states

`RET.states` and `LikelihoodLoss` are the references: results and gradients are at least as near to fp32 as
theirs in bf16. Needs a Hopper GPU (compute capability 9). Only here are Triton and its Gluon imported.

At a width of 256 the layer is bound by memory, not by arithmetic. Rows of 256 bf16 (512 bytes) that a
position moves in one application, if nothing stays in the cache:

    forward    project 1 + 3, attend 3 + 1, output and MLP 2 + 3.5                            13.5
    backward   MLP 3.5 + 2.5, attention's output 1 + 1, attend 4 + 3, project 5 + 1           21
    weights    4 products: 4 + 2 + 2.5 + 2.5                                                  11

45.5 rows are 23.3 kB, 5.9 ns at the 3.95 TB/s that an H200 copies with; 30 % of its peak would be 9.4 ns.
Hence: a norm is one number a row, applied after the product, its gain part of the weights; the softmax
stays in registers; only what the weights' gradients need is stored, and these are products over all
applications. Kernels multiply what need not be stored, cuBLAS the rest. The cache between the
multiprocessors binds as much: a program of 64 rows reads all weights of its kernel, at 5 to 6 TB/s in
all. Figures: docs/experiments.md.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cellular.decoders.ret.fused.backward import Gradients, Scratch, enter_backward, retreat, weight_gradients
from cellular.decoders.ret.fused.forward import advance, enter
from cellular.decoders.ret.fused.likelihood import SummedLikelihood
from cellular.decoders.ret.fused.tiles import Inputs, Layout, Saved, Weights
from cellular.decoders.ret.model import RET, rotary_table
from cellular.objectives import Batch

MAX_POSITIONS = 128


def fused_states(model: RET) -> Callable[[Tensor, Tensor], Tensor]:
    """What computes `model.states`, differentiable by the model's weights.

    It reads the weights at each call and waits for nothing: it can go into a CUDA graph.
    """

    def states(embeddings_BE: Tensor, pieces_BL: Tensor) -> Tensor:
        prefix_BPD = model.prefix(embeddings_BE)
        batch, positions = len(prefix_BPD), prefix_BPD.shape[1] + pieces_BL.shape[1]
        if positions > MAX_POSITIONS:
            raise ValueError(f"need at most {MAX_POSITIONS} positions, not {positions}")
        layout, dtype = Layout(batch, positions), prefix_BPD.dtype
        x_BTD: Tensor = _States.apply(
            layout,
            model.steps().float(),
            prefix_BPD,
            pieces_BL,
            model.pieces,
            model.prefix_gain,
            model.input_norm,
            (model.query_key_value * model.attention_norm).to(dtype),
            model.attention_out.to(dtype),
            (model.mlp_in * model.mlp_norm).to(dtype),
            model.mlp_out.to(dtype),
            _turn(layout, prefix_BPD.device),
        )
        return x_BTD

    return states


def fused_likelihood(model: RET, batch: Batch) -> Tensor:
    """What `LikelihoodLoss` computes: scalar float32, nats a piece."""
    states_BTD = model.states(batch.embeddings_BE, batch.inputs_BL)
    table_VD = (model.pieces * model.output_norm).to(states_BTD.dtype)
    given = states_BTD, table_VD, model.output_bias.float(), batch.targets_BL, batch.mask_BL
    total: Tensor = SummedLikelihood.apply(*given)
    return total / batch.mask_BL.count_nonzero().clamp(min=1)


def _turn(layout: Layout, device: torch.device) -> Tensor:
    """(R, K) float16: of each row of a program of attention, cosines and sines of its two halves' angles."""
    cosine_TK, sine_TK = rotary_table(layout.positions, device, torch.float16)
    row_R = torch.arange(layout.block, device=device) % layout.positions
    half = cosine_TK.shape[1] // 2
    return torch.cat([cosine_TK[row_R, :half], sine_TK[row_R, :half]], 1)


class _States(torch.autograd.Function):
    """The states after the last application; the argument order is that of `fused_states`."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, steps_AD: Tensor, *given: Tensor) -> Tensor:
        applications = len(steps_AD)
        inputs, weights, turn_RK = Inputs(*given[:5]), Weights(*given[5:9]), given[9]
        saved = Saved.empty(applications, layout.rows, inputs.prefix)
        x_AND, scale_AN = saved.x_ND, saved.scale_N
        enter(layout, inputs, steps_AD[0], x_AND[0], scale_AN[0])
        added_AD = torch.cat([steps_AD[1:], torch.zeros_like(steps_AD[:1])])
        for number in range(applications):
            following = x_AND[number + 1], scale_AN[number + 1]
            advance(layout, saved.of(number), weights, turn_RK, added_AD[number], *following)
        ctx.layout = layout
        ctx.save_for_backward(*saved.tensors(), *given)
        return layout.states(x_AND[applications])

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors, layout = ctx.saved_tensors, ctx.layout
        saved, given = Saved(*tensors[:-10]), tensors[-10:]
        inputs, weights, turn_RK = Inputs(*given[:5]), Weights(*given[5:9]), given[9]
        gradients, scratch = Gradients.empty(saved), Scratch.empty(saved)
        d_x2_ND = d_last_ND = layout.place(d_outputs[0])
        for number in reversed(range(len(saved.y_ND))):
            of_this = gradients.of(number)
            retreat(layout, saved.of(number), weights, turn_RK, d_x2_ND, of_this, scratch)
            d_x2_ND = of_this.d_x_ND
        d_prefix, _, *d_gains = enter_backward(layout, inputs, d_x2_ND).tensors()
        d_weights = weight_gradients(saved, gradients, d_last_ND)
        d_steps_AD = gradients.d_step_GD.sum(1)
        return None, d_steps_AD, d_prefix, None, *d_gains, *vars(d_weights).values(), None
