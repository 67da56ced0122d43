"""`ssd_scan` by Triton kernels: one program a text and head, whose state never leaves its registers.

    y_BLHP, state_BHPN = fused_scan(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, state_BHPN)

The matrices of a chunk (see `duality`) live in registers too: forward reads x, Δ, B, C and writes y, and the
state before each chunk for the way back; backward computes all else again. Operands of products are of x's
dtype and sums float32; products of float32 are of three TF32 ones, so that they stay as exact. A program is
one warp, and a chunk 32 positions: compiled for Hopper, no other size takes as few instructions a position
(64 and four warps: 2.4 times as many forward, twice as many back), most of which share out what is there.

Operators of their own, so that a compiler takes them as they are. Nothing waits for the device: they can go
into a CUDA graph. Triton is imported at their first call alone.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK = 32
DTYPES = torch.float32, torch.bfloat16, torch.float16
_ANY_STRIDES = (torch.Tag.flexible_layout,)  # else a compiler would copy a tensor to keep those it traced


def fused_scan(
    x_BLHP: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    """`duality.ssd_scan` of tensors in DTYPES, the state float32; differentiable once, by every argument.

    They need not be contiguous: parts of one product's result are read where they lie.
    """
    y_BLHP, last_BHPN, _ = scan(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, state_BHPN)
    return y_BLHP, last_BHPN


@torch.library.custom_op("cellular::ssd_scan", mutates_args=(), tags=_ANY_STRIDES)
def scan(
    x_BLHP: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states (B, m, H, P, N) before each of m chunks, of x's dtype."""
    from cellular.ssm.fused.forward import advance

    results: tuple[Tensor, Tensor, Tensor] = _room(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, state_BHPN)
    advance(_rows(x_BLHP), delta_BLH, a_H, _rows(b_BLN), _rows(c_BLN), state_BHPN.contiguous(), *results)
    return results


@scan.register_fake
def _room(
    x_BLHP: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, width = x_BLHP.shape
    chunks = -(-length // CHUNK)
    return (
        x_BLHP.new_empty(x_BLHP.shape),
        state_BHPN.new_empty(state_BHPN.shape),
        x_BLHP.new_empty(batch, chunks, heads, width, b_BLN.shape[2]),
    )


@torch.library.custom_op("cellular::ssd_scan_backward", mutates_args=(), tags=_ANY_STRIDES)
def scan_backward(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    before_BmHPN: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, Δ, A (a text each), B and C (a head each, (B, H, L, N)), and by the first state."""
    from cellular.ssm.fused.backward import retreat

    x_BLHP, b_BLN, c_BLN, d_y_BLHP = map(_rows, (x_BLHP, b_BLN, c_BLN, d_y_BLHP))
    arguments = x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, before_BmHPN, d_y_BLHP, d_last_BHPN.contiguous()
    gradients: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _gradient_room(*arguments)
    retreat(*arguments, *gradients)
    return gradients


@scan_backward.register_fake
def _gradient_room(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    before_BmHPN: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, length, heads, _ = x_BLHP.shape
    by_head = batch, heads, length, b_BLN.shape[2]
    return (
        x_BLHP.new_empty(x_BLHP.shape),
        delta_BLH.new_empty(delta_BLH.shape),
        a_H.new_empty(batch, heads, dtype=torch.float32),
        b_BLN.new_empty(by_head),
        c_BLN.new_empty(by_head),
        d_last_BHPN.new_empty(d_last_BHPN.shape),
    )


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)  # no zeros for the states before the chunks


def _differentiate(
    ctx: Any, d_y_BLHP: Tensor | None, d_last_BHPN: Tensor | None, _: Tensor | None
) -> tuple[Tensor, ...]:
    x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, before_BmHPN = ctx.saved_tensors
    if d_y_BLHP is None:
        d_y_BLHP = x_BLHP.new_zeros(x_BLHP.shape)
    if d_last_BHPN is None:
        d_last_BHPN = before_BmHPN.new_zeros(before_BmHPN[:, 0].shape, dtype=torch.float32)
    d_x_BLHP, d_delta_BLH, d_a_BH, d_b_BHLN, d_c_BHLN, d_state_BHPN = scan_backward(
        x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, before_BmHPN, d_y_BLHP, d_last_BHPN
    )
    d_a_H = d_a_BH.sum(0).to(a_H.dtype)
    return d_x_BLHP, d_delta_BLH, d_a_H, d_b_BHLN.sum(1), d_c_BHLN.sum(1), d_state_BHPN


scan.register_autograd(_differentiate, setup_context=_keep)


def _rows(part: Tensor) -> Tensor:
    """The same with a last axis that lies together."""
    return part if part.stride(-1) == 1 else part.contiguous()
