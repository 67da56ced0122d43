"""The scan's kernels as an operator."""

from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor

CHUNK: Final = 32
ANY_STRIDES: Final = (
    torch.Tag.flexible_layout,
)  # else a compiler would copy a tensor to keep those it traced
_DTYPES: Final = torch.float32, torch.bfloat16, torch.float16
_HAS_TRITON: Final = find_spec("triton") is not None


def has_kernels(x: Tensor) -> bool:
    """Whether there are kernels for this tensor's device and dtype."""
    return _HAS_TRITON and x.is_cuda and x.dtype in _DTYPES


def fused_scan(
    x_BLHP: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLN: Tensor, c_BLN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    """`duality.ssd_scan` with a float32 state; differentiable once, by every argument.

    Tensors need not be contiguous: parts of one product's result are read where they lie.
    """
    skip_H = torch.zeros_like(a_H)
    y_BLHP, last_BHPN, _ = scan(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, state_BHPN)
    return y_BLHP, last_BHPN


@torch.library.custom_op("cellular::ssd_scan", mutates_args=(), tags=ANY_STRIDES)
def scan(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    skip_H: Tensor,
    state_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the states (B, m, H, P, N) before each of m chunks, of x's dtype."""
    from cellular.ssm.fused.forward import advance

    x_BLHP, b_BLN, c_BLN = map(rows, (x_BLHP, b_BLN, c_BLN))
    arguments = x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, state_BHPN.contiguous()
    results: tuple[Tensor, Tensor, Tensor] = scan_room(*arguments)
    advance(*arguments, *results)
    return results


@scan.register_fake
def scan_room(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    skip_H: Tensor,
    state_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """For the results."""
    batch, length, heads, width = x_BLHP.shape
    return (
        x_BLHP.new_empty(x_BLHP.shape),
        state_BHPN.new_empty(state_BHPN.shape),
        x_BLHP.new_empty(batch, -(-length // CHUNK), heads, width, b_BLN.shape[2]),
    )


@torch.library.custom_op("cellular::ssd_scan_backward", mutates_args=(), tags=ANY_STRIDES)
def scan_backward(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    skip_H: Tensor,
    before_BmHPN: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, Δ, A (B, H), B and C side by side (B, H, L, 2 N), skip (B, H), and the first state."""
    from cellular.ssm.fused.backward import retreat

    x_BLHP, b_BLN, c_BLN, d_y_BLHP = map(rows, (x_BLHP, b_BLN, c_BLN, d_y_BLHP))
    d_last_BHPN = d_last_BHPN.contiguous()
    arguments = x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, before_BmHPN, d_y_BLHP, d_last_BHPN
    gradients: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = gradient_room(*arguments)
    retreat(*arguments, *gradients)
    return gradients


@scan_backward.register_fake
def gradient_room(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    skip_H: Tensor,
    before_BmHPN: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For the gradients."""
    batch, length, heads, _ = x_BLHP.shape
    return (
        x_BLHP.new_empty(x_BLHP.shape),
        delta_BLH.new_empty(delta_BLH.shape),
        a_H.new_empty(batch, heads, dtype=torch.float32),
        b_BLN.new_empty(batch, heads, length, 2 * b_BLN.shape[2]),
        a_H.new_empty(batch, heads, dtype=torch.float32),
        d_last_BHPN.new_empty(d_last_BHPN.shape),
    )


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:6], output[2])
    ctx.set_materialize_grads(False)  # no zeros for the states before the chunks


def _differentiate(
    ctx: Any, d_y_BLHP: Tensor | None, d_last_BHPN: Tensor | None, _: Tensor | None
) -> tuple[Tensor, ...]:
    x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, before_BmHPN = ctx.saved_tensors
    d_x_BLHP, d_delta_BLH, d_a_BH, d_bc_BHLM, d_skip_BH, d_state_BHPN = scan_backward(
        x_BLHP,
        delta_BLH,
        a_H,
        b_BLN,
        c_BLN,
        skip_H,
        before_BmHPN,
        d_y_BLHP if d_y_BLHP is not None else x_BLHP.new_zeros(x_BLHP.shape),
        d_last_BHPN if d_last_BHPN is not None else zero_state(before_BmHPN),
    )
    d_b_BLN, d_c_BLN = d_bc_BHLM.sum(1).chunk(2, -1)
    d_a_H, d_skip_H = d_a_BH.sum(0).to(a_H.dtype), d_skip_BH.sum(0).to(skip_H.dtype)
    return d_x_BLHP, d_delta_BLH, d_a_H, d_b_BLN, d_c_BLN.to(c_BLN.dtype), d_skip_H, d_state_BHPN


scan.register_autograd(_differentiate, setup_context=_keep)


def zero_state(before_BmHPN: Tensor) -> Tensor:
    """(B, H, P, N) float32."""
    batch, _, *state = before_BmHPN.shape
    return before_BmHPN.new_zeros(batch, *state, dtype=torch.float32)


def rows(part: Tensor) -> Tensor:
    """The same with a last axis that lies together."""
    return part if part.stride(-1) == 1 else part.contiguous()
