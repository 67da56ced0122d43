"""The way back through the scan, from the last chunk to the first; names as in `forward`.

With S = attention, M = (d_y xᵀ) ∘ decay and E = Δ B, y = S x, d_C = M E and d_E = Mᵀ C, each with its part by
way of the state. What S ∘ (d_y xᵀ) gives to the logarithm of the decay at r, its sum over s < r <= t, is
that of C ∘ d_C less E ∘ d_E from r on (Yang et al. 2024, "Gated Linear Attention"): all products of M, whose
rounding cancels.
"""

import triton
import triton.language as tl
from torch import Tensor

from cellular.ssm.fused.forward import _LOG2_E, _NOTHING_LEFT, blocks, decays, load_rows, skips, strides

_WARPS, _STAGES = 1, 2


@triton.jit
def scan_backward_kernel(
    x_ptr, delta_ptr, a_ptr, b_ptr, c_ptr, skip_ptr, before_ptr, d_y_ptr, d_last_ptr,
    d_x_ptr, d_delta_ptr, d_a_ptr, d_bc_ptr, d_skip_ptr, d_state_ptr, length, heads,
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
    x_ptr += text * x_text + head * x_head
    delta_ptr += text * delta_text + head * delta_head
    b_ptr += text * b_text
    c_ptr += text * c_text
    d_y_ptr += text * d_y_text + head * d_y_head
    d_x_ptr += (text * length * heads + head) * P
    d_delta_ptr += text * length * heads + head
    d_bc_ptr += (text * heads + head) * length * 2 * N
    before_ptr += (text * CHUNKS * heads + head) * P * N
    whole = (text * heads + head) * P * N
    rate = tl.load(a_ptr + head).to(tl.float32)
    d_state = tl.load(d_last_ptr + whole + in_state, mask=of_state, other=0.0)
    row = (CHUNKS - 1) * Q + t
    following = tl.load(delta_ptr + row * delta_row, mask=row < length, other=0.0)
    skip, d_rate_sum = skips(skip_ptr, head, Q), 0.0
    d_skip = tl.zeros((Q, Q), tl.float32)
    for back in range(CHUNKS):
        chunk = CHUNKS - 1 - back
        row = chunk * Q + t
        inside = row < length
        valid = inside[:, None]
        delta = following.to(tl.float32)
        following = tl.load(delta_ptr + (row - Q) * delta_row, mask=row >= Q, other=0.0)
        x = load_rows(x_ptr, row, x_row, p, valid & channel)
        b = load_rows(b_ptr, row, b_row, n, valid & component)
        c = load_rows(c_ptr, row, c_row, n, valid & component).to(x.dtype)
        d_y = load_rows(d_y_ptr, row, d_y_row, p, valid & channel).to(x.dtype)
        before = tl.load(before_ptr + chunk * (heads * P * N) + in_state, mask=of_state, other=0.0)
        logarithm = delta * (rate * _LOG2_E)
        counts = logarithm > _NOTHING_LEFT
        logarithm = tl.maximum(logarithm, _NOTHING_LEFT)
        until, total = tl.cumsum(logarithm, 0), tl.sum(logarithm, 0)
        kept, left, decay = tl.exp2(until), tl.exp2(total - until), decays(until, Q)

        exact = b.to(tl.float32) * delta[:, None]
        entering, leaving = exact.to(x.dtype), (exact * left[:, None]).to(x.dtype)
        near = d_state.to(x.dtype)
        product = tl.dot(c, tl.trans(entering), input_precision="tf32x3") * decay + skip
        d_x = tl.dot(leaving, tl.trans(near), input_precision="tf32x3")
        d_x = tl.dot(tl.trans(product.to(x.dtype)), d_y, d_x, input_precision="tf32x3")
        tl.store(d_x_ptr + row[:, None] * (heads * P) + p[None, :], d_x.to(x.dtype), mask=valid & channel)

        d_product = tl.dot(d_y, tl.trans(x), input_precision="tf32x3")
        d_skip += d_product
        d_product = (d_product * decay).to(x.dtype)
        d_c = tl.dot(d_y, before, input_precision="tf32x3") * kept[:, None]
        d_c = tl.dot(d_product, entering, d_c, input_precision="tf32x3")
        d_leaving = tl.dot(x, near, input_precision="tf32x3") * left[:, None]
        d_entering = tl.dot(tl.trans(d_product), c, d_leaving, input_precision="tf32x3")
        in_rows = d_bc_ptr + row[:, None] * 2 * N + n[None, :]
        tl.store(in_rows, (d_entering * delta[:, None]).to(d_bc_ptr.dtype.element_ty), mask=valid & component)
        tl.store(in_rows + N, d_c.to(d_bc_ptr.dtype.element_ty), mask=valid & component)

        entered = entering.to(tl.float32)
        d_until = tl.sum(d_c * c.to(tl.float32), 1) - tl.sum(d_entering * entered, 1)
        d_rate = tl.cumsum(d_until, 0, reverse=True) + tl.sum(d_leaving * entered)
        d_rate += tl.sum(d_state * before.to(tl.float32)) * tl.exp2(total)
        d_rate = tl.where(counts, d_rate, 0.0)
        d_delta = tl.sum(d_entering * b.to(tl.float32), 1) + d_rate * rate
        tl.store(d_delta_ptr + row * heads, d_delta.to(d_delta_ptr.dtype.element_ty), mask=inside)
        d_rate_sum += tl.sum(d_rate * delta)
        reading = (c.to(tl.float32) * kept[:, None]).to(x.dtype)
        d_state = tl.dot(tl.trans(d_y), reading, d_state * tl.exp2(total), input_precision="tf32x3")
    tl.store(d_state_ptr + whole + in_state, d_state, mask=of_state)
    tl.store(d_a_ptr + tl.program_id(0), d_rate_sum)
    itself = t[:, None] == t[None, :]
    tl.store(d_skip_ptr + tl.program_id(0), tl.sum(tl.where(itself, d_skip, 0.0)))


def retreat(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    skip_H: Tensor,
    before_BmHPN: Tensor,
    d_y_BLHP: Tensor,
    d_last_BHPN: Tensor,
    *gradients: Tensor,
) -> None:
    """Fill the gradients, in the order of `scan_backward`."""
    batch, length, heads, width = x_BLHP.shape
    scan_backward_kernel[(batch * heads,)](
        x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, before_BmHPN, d_y_BLHP, d_last_BHPN, *gradients,
        length, heads,
        *strides(x_BLHP, delta_BLH, b_BLN, c_BLN),
        *d_y_BLHP.stride()[:3],
        **blocks(length, width, b_BLN.shape[2]),
        num_warps=_WARPS,
        num_stages=_STAGES,
    )  # fmt: skip
