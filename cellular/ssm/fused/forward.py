"""The scan, chunk by chunk. Names are those of `duality`; logarithms are to base 2, as the hardware's are.

decay[t, s] is the exponential of a difference of two cumulated sums, within one chunk only. A step of so
strong a decay that nothing is left counts as one of 2^-150, which is as exactly 0: so the sums stay small,
and what follows that step is as exact as without it.
"""

import triton
import triton.language as tl
from torch import Tensor

from cellular.ssm.fused.scan import CHUNK

_LOG2_E = tl.constexpr(1.4426950408889634)
_NOTHING_LEFT = tl.constexpr(-150.0)
_WARPS, _STAGES = 1, 2


@triton.jit
def load_rows(ptr, row, stride, columns, mask):
    """Rows that need not follow one another."""
    return tl.load(ptr + row[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def skips(skip_ptr, head, Q: tl.constexpr):
    """(Q, Q): what a position's output gets of its own input besides."""
    t = tl.arange(0, Q)
    return tl.where(t[:, None] == t[None, :], tl.load(skip_ptr + head).to(tl.float32), 0.0)


@triton.jit
def decays(until, Q: tl.constexpr):
    """(Q, Q): what is left at t of what entered at s, 0 where t < s."""
    t = tl.arange(0, Q)
    between = until[:, None] - until[None, :]
    return tl.exp2(tl.where(t[:, None] >= t[None, :], between, float("-inf")))


@triton.jit
def scan_kernel(
    x_ptr, delta_ptr, a_ptr, b_ptr, c_ptr, skip_ptr, state_ptr, y_ptr, last_ptr, before_ptr, length, heads,
    x_text, x_row, x_head, delta_text, delta_row, delta_head, b_text, b_row, c_text, c_row,
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
    y_ptr += (text * length * heads + head) * P
    before_ptr += (text * CHUNKS * heads + head) * P * N
    whole = (text * heads + head) * P * N
    rate = tl.load(a_ptr + head).to(tl.float32) * _LOG2_E
    skip = skips(skip_ptr, head, Q)
    state = tl.load(state_ptr + whole + in_state, mask=of_state, other=0.0)
    following = tl.load(delta_ptr + t * delta_row, mask=t < length, other=0.0)
    for chunk in range(CHUNKS):
        row = chunk * Q + t
        valid = (row < length)[:, None]
        delta = following.to(tl.float32)
        following = tl.load(delta_ptr + (row + Q) * delta_row, mask=row + Q < length, other=0.0)
        x = load_rows(x_ptr, row, x_row, p, valid & channel)
        b = load_rows(b_ptr, row, b_row, n, valid & component)
        c = load_rows(c_ptr, row, c_row, n, valid & component).to(x.dtype)
        before = state.to(x.dtype)
        tl.store(before_ptr + chunk * (heads * P * N) + in_state, before, mask=of_state)

        logarithm = tl.maximum(delta * rate, _NOTHING_LEFT)
        until, total = tl.cumsum(logarithm, 0), tl.sum(logarithm, 0)
        entering = b.to(tl.float32) * delta[:, None]
        reading = (c.to(tl.float32) * tl.exp2(until)[:, None]).to(x.dtype)
        product = tl.dot(c, tl.trans(entering.to(x.dtype)), input_precision="tf32x3")
        y = tl.dot(reading, tl.trans(before), input_precision="tf32x3")
        attention = (product * decays(until, Q) + skip).to(x.dtype)
        y = tl.dot(attention, x, y, input_precision="tf32x3")
        tl.store(y_ptr + row[:, None] * (heads * P) + p[None, :], y.to(x.dtype), mask=valid & channel)
        leaving = (entering * tl.exp2(total - until)[:, None]).to(x.dtype)
        state = tl.dot(tl.trans(x), leaving, state * tl.exp2(total), input_precision="tf32x3")
    tl.store(last_ptr + whole + in_state, state, mask=of_state)


def advance(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    skip_H: Tensor,
    state_BHPN: Tensor,
    y_BLHP: Tensor,
    last_BHPN: Tensor,
    before_BmHPN: Tensor,
) -> None:
    """Fill the last three."""
    batch, length, heads, width = x_BLHP.shape
    scan_kernel[(batch * heads,)](
        x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, skip_H, state_BHPN, y_BLHP, last_BHPN, before_BmHPN,
        length, heads,
        *strides(x_BLHP, delta_BLH, b_BLN, c_BLN),
        **blocks(length, width, b_BLN.shape[2]),
        num_warps=_WARPS,
        num_stages=_STAGES,
    )  # fmt: skip


def strides(x_BLHP: Tensor, delta_BLH: Tensor, b_BLN: Tensor, c_BLN: Tensor) -> tuple[int, ...]:
    """Those that a kernel takes, in its order."""
    return (*x_BLHP.stride()[:3], *delta_BLH.stride(), *b_BLN.stride()[:2], *c_BLN.stride()[:2])


def blocks(length: int, width: int, state: int) -> dict[str, int]:
    """Sizes, and those that products are computed in: powers of two of 16 and more."""
    block_p, block_n = (max(16, triton.next_power_of_2(size)) for size in (width, state))
    sizes = {"P": width, "N": state, "BLOCK_P": block_p, "BLOCK_N": block_n}
    return {**sizes, "CHUNKS": triton.cdiv(length, CHUNK), "Q": CHUNK}
