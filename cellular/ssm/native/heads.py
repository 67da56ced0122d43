"""`duality.ssd_scan` in C as an operator; m chunks of `CHUNK` positions."""

from typing import Any

import torch
from torch import Tensor

from cellular.ssm.native.library import CHUNK, contiguous, run


def native_heads(
    x_BLHP: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs and the last state, of contiguous tensors of one dtype; differentiable once by all."""
    y_BLHP, last_BHPN, _ = scan(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, state_BHPN)
    return y_BLHP, last_BHPN


@torch.library.custom_op("cellular::native_heads", mutates_args=(), device_types="cpu")
def scan(
    x_BLHP: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states (B, m, H, N, P) before each chunk."""
    inputs = x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, state_BHPN
    results: tuple[Tensor, Tensor, Tensor] = _room(*inputs)
    run("heads_forward", [*contiguous(*inputs), *results], *_sizes(x_BLHP, b_BLN))
    return results


@scan.register_fake
def _room(
    x_BLHP: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, width = x_BLHP.shape
    before_BmHNP = x_BLHP.new_empty(batch, -(-length // CHUNK), heads, b_BLN.shape[2], width)
    return x_BLHP.new_empty(x_BLHP.shape), state_BHPN.new_empty(state_BHPN.shape), before_BmHNP


@torch.library.custom_op("cellular::native_heads_backward", mutates_args=(), device_types="cpu")
def scan_backward(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    before_BmHNP: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, Δ, A (a text each), B, C and the first state."""
    inputs = x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, before_BmHNP, d_y_BLHP, d_last_BHPN
    gradients: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _gradient_room(*inputs)
    run("heads_backward", [*contiguous(*inputs), *gradients], *_sizes(x_BLHP, b_BLN))
    return gradients


@scan_backward.register_fake
def _gradient_room(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    before_BmHNP: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_a_BH = a_H.new_empty(len(x_BLHP), len(a_H))
    by_x, by_delta, by_b, by_c, by_state = (
        part.new_empty(part.shape) for part in (x_BLHP, delta_BLH, b_BLN, c_BLN, d_last_BHPN)
    )
    return by_x, by_delta, of_a_BH, by_b, by_c, by_state


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)  # no zeros for the states before the chunks


def _differentiate(
    ctx: Any, d_y_BLHP: Tensor | None, d_last_BHPN: Tensor | None, _: Tensor | None
) -> tuple[Tensor, ...]:
    *inputs, before_BmHNP = ctx.saved_tensors
    batch, _, heads, state, width = before_BmHNP.shape
    if d_y_BLHP is None:
        d_y_BLHP = torch.zeros_like(inputs[0])
    if d_last_BHPN is None:
        d_last_BHPN = before_BmHNP.new_zeros(batch, heads, width, state)
    by_x, by_delta, of_a_BH, *rest = scan_backward(*inputs, before_BmHNP, d_y_BLHP, d_last_BHPN)
    return by_x, by_delta, of_a_BH.sum(0), *rest


scan.register_autograd(_differentiate, setup_context=_keep)


def _sizes(x_BLHP: Tensor, b_BLN: Tensor) -> tuple[int, ...]:
    return (*x_BLHP.shape, b_BLN.shape[2])
