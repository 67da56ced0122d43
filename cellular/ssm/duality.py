"""Mamba-2's scan as matrix products: Dao & Gu 2024, "Transformers are SSMs", state space duality (SSD).

Within a chunk of Q positions the recurrence is a masked attention, y = (C Bᵀ ∘ decay) Δx, where decay[t, s]
is what is left at t of what entered at s. Chunks pass on their state, (P, N) a head, in L / Q small steps.

Nothing is divided by an exponential, and no cumulated sum is subtracted from another: decay[t, s] is the
exponential of the sum of Δ A over s < r <= t itself, which is never above 0. A strong decay underflows to an
exact 0, and what follows it is as exact as without it. All these sums are one product with zeros and ones.

On a GPU Triton's kernels do the same in registers: see `fused`. On a processor with a C compiler the
recurrence itself is faster: see `native`. Else these are products of many small matrices.

The gradient is written out: autograd's own takes twice the passes over memory. Shapes are those of
`reference`; m chunks of Q positions, V = Q Q pairs of them. `d_y` is the loss's gradient by y.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellular.ssm.fused import fused_scan, has_kernels
from cellular.ssm.native import has_native, native_heads
from cellular.ssm.reference import state_dtype


def ssd_scan(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHPN: Tensor | None = None,
    *,
    chunk: int = 32,
    compiled: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """`ssd_scan_ref`, many times faster: outputs (B, L, H, P) of x's dtype, and the last state (B, H, P, N).

    Any length from 1. The state is float32, or float64 if x is, under autocast too. Differentiable once, by
    every argument.

    Args:
        chunk: positions of a matrix, where kernels do not choose; 32 is best on a CPU.
        compiled: by kernels, Triton's on a GPU, which multiply in x's dtype, and in C on a processor; None:
            where there are any.

    Raises:
        CellularError: it is to be compiled for a processor, and there is no C compiler.
    """
    kept, length = state_dtype(x_BLHP), x_BLHP.shape[1]
    chunk = min(chunk, length)
    if state_BHPN is None:
        state_BHPN = x_BLHP.new_zeros(len(x_BLHP), *x_BLHP.shape[2:], b_BLN.shape[2], dtype=kept)
    state_BHPN = state_BHPN.to(kept)
    if compiled is not False and has_kernels(x_BLHP):
        return fused_scan(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, state_BHPN)
    if has_native(x_BLHP, compiled):
        x, delta, a, b, c = (part.to(kept) for part in (x_BLHP, delta_BLH, a_H, b_BLN, c_BLN))
        y_BLHP, state_BHPN = native_heads(x, delta, a, b, c, state_BHPN)
        return y_BLHP.to(x_BLHP.dtype), state_BHPN
    x_BmQHP, delta_BmQH, b_BmQN, c_BmQN = (
        _chunks(part.to(kept), chunk) for part in (x_BLHP, delta_BLH, b_BLN, c_BLN)
    )
    with torch.autocast(x_BLHP.device.type, enabled=False):
        y_BmQHP, state_BHPN = _Scan.apply(  # type: ignore[no-untyped-call]
            x_BmQHP, delta_BmQH, a_H.to(kept), b_BmQN, c_BmQN, state_BHPN
        )
    y_BLHP = y_BmQHP.flatten(1, 2)
    if length % chunk:
        y_BLHP = y_BLHP[:, :length]
    return y_BLHP.to(x_BLHP.dtype), state_BHPN


def _chunks(part: Tensor, chunk: int) -> Tensor:
    """(B, L, ...) to (B, m, Q, ...). What fills up the last neither enters a state nor decays it: Δ is 0."""
    missing = -part.shape[1] % chunk
    if missing:
        part = F.pad(part, [0, 0] * (part.ndim - 2) + [0, missing])
    return torch.unflatten(part, 1, (-1, chunk))


class _Sums(NamedTuple):
    """Products with Δ A (..., Q) give sums: until t (r <= t), after s (r > s), between (s < r <= t)."""

    until_QQ: Tensor
    after_QQ: Tensor
    between_QV: Tensor

    @classmethod
    def like(cls, rate_BmHQ: Tensor) -> "_Sums":
        ones_QQ = rate_BmHQ.new_ones(rate_BmHQ.shape[-1], rate_BmHQ.shape[-1])
        until_QQ, after_QQ = ones_QQ.triu(), ones_QQ.tril(-1)
        return cls(until_QQ, after_QQ, (until_QQ[:, :, None] * after_QQ[:, None]).flatten(1))


class _Factors(NamedTuple):
    """What forward and backward need, but for the inputs themselves."""

    moved_BmHQP: Tensor  # Δ x
    product_BmQQ: Tensor  # C_t · B_s
    decay_BmHQQ: Tensor  # from s to t; of no meaning where t < s
    attention_BmHQQ: Tensor
    left_BmHQ: Tensor  # decay from s to the chunk's end
    kept_BmHQ: Tensor  # decay from before the chunk to t

    @classmethod
    def of(
        cls, x_BmQHP: Tensor, delta_BmQH: Tensor, a_H: Tensor, b_BmQN: Tensor, c_BmQN: Tensor
    ) -> "_Factors":
        delta_BmHQ, x_BmHQP = delta_BmQH.transpose(2, 3), x_BmQHP.transpose(2, 3)
        rate_BmHQ = (delta_BmHQ * a_H[:, None]).contiguous()
        sums = _Sums.like(rate_BmHQ)
        decay_BmHQQ = torch.unflatten((rate_BmHQ @ sums.between_QV).exp_(), -1, sums.until_QQ.shape)
        product_BmQQ = (c_BmQN @ b_BmQN.mT).tril_()
        return cls(
            torch.mul(x_BmHQP, delta_BmHQ[..., None], out=x_BmHQP.new_empty(x_BmHQP.shape)),
            product_BmQQ,
            decay_BmHQQ,
            product_BmQQ[:, :, None] * decay_BmHQQ,
            (rate_BmHQ @ sums.after_QQ).exp_(),
            (rate_BmHQ @ sums.until_QQ).exp_(),
        )


class _Scan(torch.autograd.Function):
    """The scan in chunks, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BmQHP: Tensor,
        delta_BmQH: Tensor,
        a_H: Tensor,
        b_BmQN: Tensor,
        c_BmQN: Tensor,
        state_BHPN: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs = x_BmQHP, delta_BmQH, a_H, b_BmQN, c_BmQN
        factors = _Factors.of(*inputs)
        leaving_BmHQN = b_BmQN[:, :, None] * factors.left_BmHQ[..., None]
        reading_BmHQN = c_BmQN[:, :, None] * factors.kept_BmHQ[..., None]
        added_BmHPN = factors.moved_BmHQP.mT @ leaving_BmHQN
        before_BmHPN, last_BHPN = _pass_states(added_BmHPN, factors.kept_BmHQ[..., -1], state_BHPN)
        y_BmHQP = _add_product(factors.attention_BmHQQ @ factors.moved_BmHQP, reading_BmHQN, before_BmHPN.mT)
        ctx.save_for_backward(*inputs, before_BmHPN, *factors)
        return y_BmHQP.transpose(2, 3).contiguous(), last_BHPN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y_BmQHP: Tensor, d_last_BHPN: Tensor) -> tuple[Tensor, ...]:
        x_BmQHP, delta_BmQH, a_H, b_BmQN, c_BmQN, before_BmHPN, *rest = ctx.saved_tensors
        factors, d_y_BmHQP = _Factors(*rest), d_y_BmQHP.transpose(2, 3).contiguous()
        d_between_BmHQQ = d_y_BmHQP @ factors.moved_BmHQP.mT  # of the attention, for now
        d_product_BmQQ = (d_between_BmHQQ * factors.decay_BmHQQ).sum(2).tril_()
        d_between_BmHQQ *= factors.attention_BmHQQ

        d_reading_BmHQN = d_y_BmHQP @ before_BmHPN
        reading_BmHQN = c_BmQN[:, :, None] * factors.kept_BmHQ[..., None]
        d_added_BmHPN, d_state_BHPN = _pass_gradients(
            d_y_BmHQP.mT @ reading_BmHQN, factors.kept_BmHQ[..., -1], d_last_BHPN
        )
        d_leaving_BmHQN = factors.moved_BmHQP @ d_added_BmHPN
        leaving_BmHQN = b_BmQN[:, :, None] * factors.left_BmHQ[..., None]
        d_moved_BmHQP = _add_product(factors.attention_BmHQQ.mT @ d_y_BmHQP, leaving_BmHQN, d_added_BmHPN.mT)

        d_until_BmHQ = (d_reading_BmHQN * reading_BmHQN).sum(-1)
        d_until_BmHQ[..., -1] += (d_added_BmHPN * before_BmHPN).sum((-2, -1)) * factors.kept_BmHQ[..., -1]
        d_after_BmHQ = (d_leaving_BmHQN * leaving_BmHQN).sum(-1)
        until_QQ, after_QQ, between_QV = _Sums.like(factors.kept_BmHQ)
        d_rate_BmHQ = d_between_BmHQQ.flatten(-2) @ between_QV.T
        d_rate_BmHQ += d_until_BmHQ @ until_QQ.T + d_after_BmHQ @ after_QQ.T

        delta_BmHQ, d_moved_BmQHP = delta_BmQH.transpose(2, 3), d_moved_BmHQP.transpose(2, 3)
        d_delta_BmQH = (d_moved_BmQHP * x_BmQHP).sum(-1) + d_rate_BmHQ.transpose(2, 3) * a_H
        d_a_H = (d_rate_BmHQ * delta_BmHQ).sum((0, 1, 3))
        d_b_BmQN = d_product_BmQQ.mT @ c_BmQN + (d_leaving_BmHQN * factors.left_BmHQ[..., None]).sum(2)
        d_c_BmQN = d_product_BmQQ @ b_BmQN + (d_reading_BmHQN * factors.kept_BmHQ[..., None]).sum(2)
        d_x_BmQHP = d_moved_BmQHP * delta_BmQH[..., None]
        return d_x_BmQHP, d_delta_BmQH, d_a_H, d_b_BmQN, d_c_BmQN, d_state_BHPN


def _add_product(onto: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`onto` + `left` @ `right`, in place; matrices are the last two axes."""
    flat, *factors = (part.flatten(0, 2) for part in (onto, left, right))
    if torch.compiler.is_compiling():  # Dynamo cannot follow what is written into a view here
        return torch.baddbmm(flat, *factors).view(onto.shape)
    flat.baddbmm_(*factors)
    return onto


def _pass_states(added_BmHPN: Tensor, kept_BmH: Tensor, state_BHPN: Tensor) -> tuple[Tensor, Tensor]:
    """The state before each chunk, and the one after the last."""
    before_BmHPN = torch.empty_like(added_BmHPN)
    for chunk in range(added_BmHPN.shape[1]):
        before_BmHPN[:, chunk] = state_BHPN
        state_BHPN = torch.addcmul(added_BmHPN[:, chunk], kept_BmH[:, chunk, :, None, None], state_BHPN)
    return before_BmHPN, state_BHPN


def _pass_gradients(d_before_BmHPN: Tensor, kept_BmH: Tensor, d_last_BHPN: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by what each chunk adds to the state, and by the state before the first."""
    d_added_BmHPN, d_state_BHPN = torch.empty_like(d_before_BmHPN), d_last_BHPN
    for chunk in reversed(range(d_before_BmHPN.shape[1])):
        d_added_BmHPN[:, chunk] = d_state_BHPN
        d_state_BHPN = torch.addcmul(
            d_before_BmHPN[:, chunk], kept_BmH[:, chunk, :, None, None], d_state_BHPN
        )
    return d_added_BmHPN, d_state_BHPN
