"""The kernels as an operator.

Shapes: B examples, X, Y, Z cells along the axes, C channels, H hidden units, V = 7 C numbers seen by a cell.
"""

from typing import Any, Final

import torch
from torch import Tensor

from cellular.lattice.perceive import View
from cellular.ssm import fused

_VIEW: Final = View(6, "zeros")
_MOST_CHANNELS: Final = 128  # more do not fit a multiprocessor's shared memory


def has_kernels(state_BXYZC: Tensor, view: View) -> bool:
    """Whether there are kernels for these states and what cells see."""
    fits = view == _VIEW and state_BXYZC.itemsize == 2 and state_BXYZC.shape[-1] <= _MOST_CHANNELS
    return fits and fused.has_kernels(state_BXYZC)


@torch.library.custom_op("cellular::cells_hidden", mutates_args=())
def fused_hidden(seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor) -> Tensor:
    """(B, X, Y, Z, C): what hidden layers with these weights answer; all of one dtype.

    Differentiable once, by every argument.
    """
    from cellular.lattice.fused.kernels import forward

    return forward(seen_BXYZC.contiguous(), inward_HV.contiguous(), outward_CH.contiguous())


@fused_hidden.register_fake
def _room(seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor) -> Tensor:
    del inward_HV, outward_CH
    return seen_BXYZC.new_empty(seen_BXYZC.shape)


@torch.library.custom_op("cellular::cells_hidden_backward", mutates_args=())
def _backward(
    seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor, d_y_BXYZC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by all arguments of the operator."""
    from cellular.lattice.fused.kernels import backward

    parts = seen_BXYZC, inward_HV, outward_CH, d_y_BXYZC
    return backward(*(part.contiguous() for part in parts))


@_backward.register_fake
def _gradient_room(
    seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor, d_y_BXYZC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    del d_y_BXYZC
    parts = seen_BXYZC, inward_HV, outward_CH
    d_seen_BXYZC, d_inward_HV, d_outward_CH = (part.new_empty(part.shape) for part in parts)
    return d_seen_BXYZC, d_inward_HV, d_outward_CH


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, d_y_BXYZC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = _backward(*ctx.saved_tensors, d_y_BXYZC)
    return gradients


fused_hidden.register_autograd(_differentiate, setup_context=_keep)
