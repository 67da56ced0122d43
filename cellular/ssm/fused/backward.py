"""The way back through the scan, from the last chunk to the first; names as in `forward`.

With S = attention ∘ Δ, y = S x, and D = (d_y xᵀ) ∘ S, the logarithm of the decay at r gets the sum of D over
s < r <= t. As in Dao & Gu 2024's code that is a sum of D's rows less its columns, from r on; but of those
below the diagonal alone, which no decay scales: beside a strong one their rounding would be all that is left.
"""

import triton
import triton.language as tl
from torch import Tensor

from cellular.ssm.fused.forward import blocks, decays, strides, sums_until

_WARPS, _STAGES = 4, 1


@triton.jit
def scan_backward_kernel(
    x_ptr, delta_ptr, a_ptr, b_ptr, c_ptr, before_ptr, d_y_ptr, d_last_ptr,
    d_x_ptr, d_delta_ptr, d_a_ptr, d_b_ptr, d_c_ptr, d_state_ptr, length, heads,
    x_text, x_row, x_head, delta_text, delta_row, delta_head, b_text, b_row, c_text, c_row,
    d_y_text, d_y_row, d_y_head,
    P: tl.constexpr, N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    CHUNKS: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """One head of one text."""
    text = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    t, p, n = tl.arange(0, Q), tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    channel, component = (p < P)[None, :], (n < N)[None, :]
    in_state = p[:, None] * N + n[None, :]
    of_state = (p < P)[:, None] & component
    below = t[:, None] > t[None, :]
    x_ptr += text * x_text + head * x_head
    delta_ptr += text * delta_text + head * delta_head
    b_ptr += text * b_text
    c_ptr += text * c_text
    d_y_ptr += text * d_y_text + head * d_y_head
    d_x_ptr += (text * length * heads + head) * P
    d_delta_ptr += text * length * heads + head
    d_b_ptr += (text * heads + head) * length * N
    d_c_ptr += (text * heads + head) * length * N
    before_ptr += (text * CHUNKS * heads + head) * P * N
    whole = (text * heads + head) * P * N
    rate = tl.load(a_ptr + head).to(tl.float32)
    d_state = tl.load(d_last_ptr + whole + in_state, mask=of_state, other=0.0).to(tl.float32)
    d_rate_sum = 0.0
    for back in range(CHUNKS):
        chunk = CHUNKS - 1 - back
        row = chunk * Q + t
        inside = row < length
        valid = inside[:, None]
        delta = tl.load(delta_ptr + row * delta_row, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + row[:, None] * x_row + p[None, :], mask=valid & channel, other=0.0)
        b = tl.load(b_ptr + row[:, None] * b_row + n[None, :], mask=valid & component, other=0.0).to(x.dtype)
        c = tl.load(c_ptr + row[:, None] * c_row + n[None, :], mask=valid & component, other=0.0).to(x.dtype)
        d_y = tl.load(d_y_ptr + row[:, None] * d_y_row + p[None, :], mask=valid & channel, other=0.0)
        d_y = d_y.to(x.dtype)
        before = tl.load(before_ptr + chunk * (heads * P * N) + in_state, mask=of_state, other=0.0)
        until, total = sums_until(delta, rate)
        kept, left = tl.exp2(until), tl.exp2(total - until)

        decay = decays(until, Q)
        product = tl.dot(c, tl.trans(b), input_precision="tf32x3") * decay
        d_attention = tl.dot(d_y, tl.trans(x), input_precision="tf32x3")
        d_moved = tl.dot(b, tl.trans(d_state.to(x.dtype)), input_precision="tf32x3") * left[:, None]
        d_moved = tl.dot(tl.trans(product.to(x.dtype)), d_y, d_moved, input_precision="tf32x3")
        d_x = (d_moved * delta[:, None]).to(x.dtype)
        tl.store(d_x_ptr + row[:, None] * (heads * P) + p[None, :], d_x, mask=valid & channel)

        d_reading = tl.dot(d_y, before, input_precision="tf32x3") * kept[:, None]
        d_leaving = tl.dot(x, d_state.to(x.dtype), input_precision="tf32x3") * left[:, None]
        read = tl.sum(d_reading * c.to(tl.float32), 1)
        left_over = tl.sum(d_leaving * b.to(tl.float32), 1)
        d_product = (d_attention * decay * delta[None, :]).to(x.dtype)
        d_c = tl.dot(d_product, b, d_reading, input_precision="tf32x3")
        d_b = tl.dot(tl.trans(d_product), c, d_leaving * delta[:, None], input_precision="tf32x3")
        in_rows = row[:, None] * N + n[None, :]
        tl.store(d_c_ptr + in_rows, d_c.to(d_c_ptr.dtype.element_ty), mask=valid & component)
        tl.store(d_b_ptr + in_rows, d_b.to(d_b_ptr.dtype.element_ty), mask=valid & component)

        of_pairs = tl.where(below, d_attention * product, 0.0)
        entered = tl.sum(of_pairs, 0)
        itself = tl.sum(d_y.to(tl.float32) * x.to(tl.float32), 1)
        itself *= tl.sum(c.to(tl.float32) * b.to(tl.float32), 1)
        after = left_over * delta
        d_rate = tl.cumsum(tl.sum(of_pairs * delta[None, :], 1) - entered * delta + read, 0, reverse=True)
        d_rate += tl.cumsum(after, 0) - after
        d_rate += tl.sum(d_state * before.to(tl.float32)) * tl.exp2(total)
        d_delta = entered + itself + left_over + d_rate * rate
        tl.store(d_delta_ptr + row * heads, d_delta.to(d_delta_ptr.dtype.element_ty), mask=inside)
        d_rate_sum += tl.sum(d_rate * delta)

        reading = (c.to(tl.float32) * kept[:, None]).to(x.dtype)
        d_state = tl.dot(tl.trans(d_y), reading, d_state * tl.exp2(total), input_precision="tf32x3")
    tl.store(d_state_ptr + whole + in_state, d_state, mask=of_state)
    tl.store(d_a_ptr + tl.program_id(0), d_rate_sum)


def retreat(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    before_BmHPN: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
    *gradients: Tensor,
) -> None:
    """Fill the gradients, in the order of `scan_backward`."""
    batch, length, heads, width = x_BLHP.shape
    scan_backward_kernel[(batch * heads,)](
        x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, before_BmHPN, d_y_BLHP, d_last_BHPN, *gradients, length, heads,
        *strides(x_BLHP, delta_BLH, b_BLN, c_BLN),
        *d_y_BLHP.stride()[:3],
        **blocks(length, width, b_BLN.shape[2]),
        num_warps=_WARPS,
        num_stages=_STAGES,
    )  # fmt: skip
