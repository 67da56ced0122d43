"""`channels.selective_scan` in C as an operator; m chunks of `CHUNK` positions."""

from typing import Any

import torch
from torch import Tensor

from cellular.ssm.native.library import CHUNK, contiguous, run


def native_channels(
    x_BLD: Tensor, delta_BLD: Tensor, a_ND: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BND: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs and the last state, of tensors of one dtype; differentiable once by all."""
    y_BLD, last_BND, _ = scan(x_BLD, delta_BLD, a_ND, b_BLN, c_BLN, state_BND)
    return y_BLD, last_BND


@torch.library.custom_op("cellular::native_channels", mutates_args=(), device_types="cpu")
def scan(
    x_BLD: Tensor, delta_BLD: Tensor, a_ND: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BND: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states (B, m, N, D) before each chunk."""
    inputs = x_BLD, delta_BLD, a_ND, b_BLN, c_BLN, state_BND
    results: tuple[Tensor, Tensor, Tensor] = _room(*inputs)
    run("channels_forward", [*contiguous(*inputs), *results], *_sizes(x_BLD, a_ND))
    return results


@scan.register_fake
def _room(
    x_BLD: Tensor, delta_BLD: Tensor, a_ND: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BND: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, _ = x_BLD.shape
    before_BmND = x_BLD.new_empty(batch, -(-length // CHUNK), *a_ND.shape)
    return x_BLD.new_empty(x_BLD.shape), state_BND.new_empty(state_BND.shape), before_BmND


@torch.library.custom_op("cellular::native_channels_backward", mutates_args=(), device_types="cpu")
def scan_backward(
    x_BLD: Tensor,
    delta_BLD: Tensor,
    a_ND: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    before_BmND: Tensor,
    d_y_BLD: Tensor,
    d_last_BND: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, Δ, A (a text each), B, C and the first state."""
    inputs = x_BLD, delta_BLD, a_ND, b_BLN, c_BLN, before_BmND, d_y_BLD, d_last_BND
    gradients: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _gradient_room(*inputs)
    run("channels_backward", [*contiguous(*inputs), *gradients], *_sizes(x_BLD, a_ND))
    return gradients


@scan_backward.register_fake
def _gradient_room(
    x_BLD: Tensor,
    delta_BLD: Tensor,
    a_ND: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    before_BmND: Tensor,
    d_y_BLD: Tensor,
    d_last_BND: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_a_BND = a_ND.new_empty(len(x_BLD), *a_ND.shape)
    by_x, by_delta, by_b, by_c, by_state = (
        part.new_empty(part.shape) for part in (x_BLD, delta_BLD, b_BLN, c_BLN, d_last_BND)
    )
    return by_x, by_delta, of_a_BND, by_b, by_c, by_state


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)  # no zeros for the states before the chunks


def _differentiate(
    ctx: Any, d_y_BLD: Tensor | None, d_last_BND: Tensor | None, _: Tensor | None
) -> tuple[Tensor, ...]:
    *inputs, before_BmND = ctx.saved_tensors
    d_y_BLD = torch.zeros_like(inputs[0]) if d_y_BLD is None else d_y_BLD
    d_last_BND = torch.zeros_like(before_BmND[:, 0]) if d_last_BND is None else d_last_BND
    by_x, by_delta, of_a_BND, *rest = scan_backward(*inputs, before_BmND, d_y_BLD, d_last_BND)
    return by_x, by_delta, of_a_BND.sum(0), *rest


scan.register_autograd(_differentiate, setup_context=_keep)


def _sizes(x_BLD: Tensor, a_ND: Tensor) -> tuple[int, ...]:
    return (*x_BLD.shape, len(a_ND))
