"""A `MambaBlock` between its products as one operator: convolution, SiLU, scan and skip, of whole sequences.

As one, the gradients of x, B and C go from the scan straight to the convolution: no compiler fuses what must
be summed over heads, set side by side and read at four positions. Shapes as in `block`; M = 2 N.
"""

from typing import Any

import torch
from torch import Tensor

from cellular.ssm.fused.scan import ANY_STRIDES, gradient_room, has_kernels, rows, scan_room, zero_state

_TAPS = 4


def mixes(mixed_BLG: Tensor, taps_KG: Tensor) -> bool:
    """Whether there are kernels for it."""
    return has_kernels(mixed_BLG) and len(taps_KG) == _TAPS


def fused_mix(
    mixed_BLG: Tensor,
    taps_KG: Tensor,
    bias_G: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    skip_H: Tensor,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, L, H, P) of heads of P = `width`, and the last state (B, H, P, N) float32.

    `mixed_BLG` may be a part of a wider tensor. Differentiable once, by every argument.
    """
    y_BLHP, last_BHPN, _, _ = mix(mixed_BLG, taps_KG, bias_G, delta_BLH, a_H, skip_H, width)
    return y_BLHP, last_BHPN


@torch.library.custom_op("cellular::mix", mutates_args=(), tags=ANY_STRIDES)
def mix(
    mixed_BLG: Tensor,
    taps_KG: Tensor,
    bias_G: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    skip_H: Tensor,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, the last state, the states before each chunk, and x, B and C side by side (B, L, G)."""
    from cellular.ssm.fused.convolution import convolve
    from cellular.ssm.fused.forward import advance

    convolved_BLG = mixed_BLG.new_empty(mixed_BLG.shape)
    convolve(rows(mixed_BLG), taps_KG.contiguous(), bias_G, convolved_BLG)
    x_BLHP, b_BLN, c_BLN = _parts(convolved_BLG, len(a_H), width)
    state_BHPN = mixed_BLG.new_zeros(len(mixed_BLG), len(a_H), width, b_BLN.shape[2], dtype=torch.float32)
    arguments = x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, state_BHPN
    results = scan_room(*arguments)
    advance(*arguments, *results)
    return (*results, convolved_BLG)


@mix.register_fake
def _mix_room(
    mixed_BLG: Tensor,
    taps_KG: Tensor,
    bias_G: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    skip_H: Tensor,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    convolved_BLG = mixed_BLG.new_empty(mixed_BLG.shape)
    x_BLHP, b_BLN, c_BLN = _parts(convolved_BLG, len(a_H), width)
    state_BHPN = mixed_BLG.new_empty(len(mixed_BLG), len(a_H), width, b_BLN.shape[2], dtype=torch.float32)
    return (*scan_room(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, state_BHPN), convolved_BLG)


@torch.library.custom_op("cellular::mix_backward", mutates_args=(), tags=ANY_STRIDES)
def mix_backward(
    mixed_BLG: Tensor,
    taps_KG: Tensor,
    bias_G: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    skip_H: Tensor,
    before_BmHPN: Tensor,
    convolved_BLG: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by `mixed`, taps and bias (B, 5, G), Δ, A (B, H) and skip (B, H)."""
    from cellular.ssm.fused.backward import retreat
    from cellular.ssm.fused.convolution import convolve_back

    parts = _parts(convolved_BLG, len(a_H), d_y_BLHP.shape[3])
    ends = rows(d_y_BLHP), d_last_BHPN.contiguous()
    arguments = parts[0], delta_BLH, a_H, parts[1], parts[2], skip_H, before_BmHPN, *ends
    gradients = gradient_room(*arguments)
    retreat(*arguments, *gradients)
    d_x_BLHP, d_delta_BLH, d_a_BH, d_bc_BHLM, d_skip_BH, _ = gradients
    d_sums_BLG, d_mixed_BLG = torch.empty_like(convolved_BLG), torch.empty_like(convolved_BLG)
    d_taps_B5G = a_H.new_empty(len(mixed_BLG), _TAPS + 1, mixed_BLG.shape[2], dtype=torch.float32)
    of_convolution = rows(mixed_BLG), taps_KG.contiguous(), bias_G, d_x_BLHP, d_bc_BHLM
    convolve_back(*of_convolution, d_sums_BLG, d_mixed_BLG, d_taps_B5G)
    return d_mixed_BLG, d_taps_B5G, d_delta_BLH, d_a_BH, d_skip_BH


@mix_backward.register_fake
def _mix_gradient_room(
    mixed_BLG: Tensor,
    taps_KG: Tensor,
    bias_G: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    skip_H: Tensor,
    before_BmHPN: Tensor,
    convolved_BLG: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, heads, mixed = len(mixed_BLG), len(a_H), mixed_BLG.shape[2]
    return (
        mixed_BLG.new_empty(mixed_BLG.shape),
        a_H.new_empty(batch, _TAPS + 1, mixed, dtype=torch.float32),
        delta_BLH.new_empty(delta_BLH.shape),
        a_H.new_empty(batch, heads, dtype=torch.float32),
        a_H.new_empty(batch, heads, dtype=torch.float32),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:6], *output[2:])
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _differentiate(
    ctx: Any, d_y_BLHP: Tensor | None, d_last_BHPN: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    *inputs, before_BmHPN, convolved_BLG = ctx.saved_tensors
    _, taps_KG, bias_G, delta_BLH, a_H, skip_H = inputs
    if d_y_BLHP is None:
        d_y_BLHP = before_BmHPN.new_zeros(*delta_BLH.shape, before_BmHPN.shape[3])
    if d_last_BHPN is None:
        d_last_BHPN = zero_state(before_BmHPN)
    d_mixed_BLG, d_taps_B5G, d_delta_BLH, d_a_BH, d_skip_BH = mix_backward(
        *inputs, before_BmHPN, convolved_BLG, d_y_BLHP, d_last_BHPN
    )
    d_taps_5G, d_a_H, d_skip_H = (part.sum(0) for part in (d_taps_B5G, d_a_BH, d_skip_BH))
    d_taps_KG, d_bias_G = d_taps_5G[:-1].to(taps_KG.dtype), d_taps_5G[-1].to(bias_G.dtype)
    d_a_H, d_skip_H = d_a_H.to(a_H.dtype), d_skip_H.to(skip_H.dtype)
    return d_mixed_BLG, d_taps_KG, d_bias_G, d_delta_BLH, d_a_H, d_skip_H, None


mix.register_autograd(_differentiate, setup_context=_keep)


def _parts(convolved_BLG: Tensor, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, L, H, P), B and C (B, L, N): views."""
    inner = heads * width
    x_BLI, b_BLN, c_BLN = convolved_BLG.tensor_split((inner, (inner + convolved_BLG.shape[2]) // 2), 2)
    return x_BLI.unflatten(2, (heads, width)), b_BLN, c_BLN
