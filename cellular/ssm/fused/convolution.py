"""The causal depthwise convolution of four taps and its SiLU, (B, L, G) to the same shape, both ways.

Backward computes the SiLU's inputs again. Their gradients are stored, since each is needed at four positions:
to compute them at each costs three times as many instructions as fit into the time that memory takes.
"""

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 32  # channels: 64 bytes of a row
_ROWS, _WARPS = 64, 4
_ROWS_BACK = 16  # five sums a channel and row are held: more rows, fewer programs at once


@triton.jit
def _rows(ptr, row, stride, channel, inside, length):
    mask = ((row >= 0) & (row < length))[:, None] & inside[None, :]
    return tl.load(ptr + row[:, None] * stride + channel[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _tap(ptr, channel, inside):
    return tl.load(ptr + channel, mask=inside, other=0.0).to(tl.float32)[None, :]


@triton.jit
def convolve_kernel(
    mixed_ptr, taps_ptr, bias_ptr, y_ptr, length, tiles, mixed_text, mixed_row,
    G: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """Some channels of ROWS positions; BACK is the transpose of the sums alone, for gradients."""
    channel = tl.program_id(0) % GROUPS * BLOCK + tl.arange(0, BLOCK)
    inside = channel < G
    tile = tl.program_id(0) // GROUPS
    text = (tile // tiles).to(tl.int64)
    row = tile % tiles * ROWS + tl.arange(0, ROWS)
    mixed_ptr += text * mixed_text
    step: tl.constexpr = 1 if BACK else -1
    sums = _tap(taps_ptr + 3 * G, channel, inside) * _rows(mixed_ptr, row, mixed_row, channel, inside, length)
    for back in tl.static_range(1, 4):
        tap = _tap(taps_ptr + (3 - back) * G, channel, inside)
        sums += tap * _rows(mixed_ptr, row + step * back, mixed_row, channel, inside, length)
    if not BACK:
        sums += _tap(bias_ptr, channel, inside)
        sums *= tl.sigmoid(sums)
    target = y_ptr + text * length * G + row[:, None] * G + channel[None, :]
    tl.store(target, sums.to(y_ptr.dtype.element_ty), mask=(row < length)[:, None] & inside[None, :])


@triton.jit
def convolve_backward_kernel(
    mixed_ptr, taps_ptr, bias_ptr, d_x_ptr, d_bc_ptr, d_sums_ptr, d_taps_ptr, length, mixed_text, mixed_row,
    INNER: tl.constexpr, M: tl.constexpr, HEADS: tl.constexpr, GROUPS: tl.constexpr, TILES: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of some channels of a text the gradients of the SiLU's inputs, and those of taps and bias, (B, 5, G).

    The first groups are of x, the last of B and C, M channels in all, whose gradients each head gives.
    """
    G: tl.constexpr = INNER + M
    of_x: tl.constexpr = (INNER + BLOCK - 1) // BLOCK
    group = tl.program_id(0) % GROUPS
    text = (tl.program_id(0) // GROUPS).to(tl.int64)
    if group < of_x:
        width, first, source = INNER, 0, d_x_ptr + text * length * INNER
    else:
        width, first, source = M, INNER, d_bc_ptr + text * HEADS * length * M
        group -= of_x
    local = group * BLOCK + tl.arange(0, BLOCK)
    inside = local < width
    channel = first + local
    mixed_ptr += text * mixed_text
    tap0, tap1 = _tap(taps_ptr, channel, inside), _tap(taps_ptr + G, channel, inside)
    tap2, tap3 = _tap(taps_ptr + 2 * G, channel, inside), _tap(taps_ptr + 3 * G, channel, inside)
    bias = _tap(bias_ptr, channel, inside)
    d_tap0 = tl.zeros((ROWS, BLOCK), tl.float32)
    d_tap1 = tl.zeros((ROWS, BLOCK), tl.float32)
    d_tap2 = tl.zeros((ROWS, BLOCK), tl.float32)
    d_tap3 = tl.zeros((ROWS, BLOCK), tl.float32)
    d_bias = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in range(TILES):
        row = tile * ROWS + tl.arange(0, ROWS)
        before3 = _rows(mixed_ptr, row - 3, mixed_row, channel, inside, length)
        before2 = _rows(mixed_ptr, row - 2, mixed_row, channel, inside, length)
        before1 = _rows(mixed_ptr, row - 1, mixed_row, channel, inside, length)
        here = _rows(mixed_ptr, row, mixed_row, channel, inside, length)
        gate_in = bias + tap0 * before3 + tap1 * before2 + tap2 * before1 + tap3 * here
        gate = tl.sigmoid(gate_in)
        d_y = _rows(source, row, width, local, inside, length)
        if first > 0:
            for head in range(1, HEADS):
                d_y += _rows(source + head * length * M, row, width, local, inside, length)
        d_sums = d_y * gate * (1.0 + gate_in * (1.0 - gate))
        d_bias += d_sums
        d_tap0 += d_sums * before3
        d_tap1 += d_sums * before2
        d_tap2 += d_sums * before1
        d_tap3 += d_sums * here
        target = d_sums_ptr + text * length * G + row[:, None] * G + channel[None, :]
        mask = (row < length)[:, None] & inside[None, :]
        tl.store(target, d_sums.to(d_sums_ptr.dtype.element_ty), mask=mask)
    target = d_taps_ptr + text * 5 * G + channel
    tl.store(target, tl.sum(d_tap0, 0), mask=inside)
    tl.store(target + G, tl.sum(d_tap1, 0), mask=inside)
    tl.store(target + 2 * G, tl.sum(d_tap2, 0), mask=inside)
    tl.store(target + 3 * G, tl.sum(d_tap3, 0), mask=inside)
    tl.store(target + 4 * G, tl.sum(d_bias, 0), mask=inside)


def convolve(
    mixed_BLG: Tensor, taps_KG: Tensor, bias_G: Tensor, y_BLG: Tensor, *, back: bool = False
) -> None:
    """Fill y."""
    batch, length, mixed = mixed_BLG.shape
    groups, tiles = triton.cdiv(mixed, _BLOCK), triton.cdiv(length, _ROWS)
    convolve_kernel[(batch * tiles * groups,)](
        mixed_BLG, taps_KG, bias_G, y_BLG, length, tiles, *mixed_BLG.stride()[:2],
        G=mixed, GROUPS=groups, BLOCK=_BLOCK, ROWS=_ROWS, BACK=back, num_warps=_WARPS,
    )  # fmt: skip


def convolve_back(
    mixed_BLG: Tensor, taps_KG: Tensor, bias_G: Tensor, d_x_BLHP: Tensor, d_bc_BHLM: Tensor,
    d_sums_BLG: Tensor, d_mixed_BLG: Tensor, d_taps_B5G: Tensor,
) -> None:  # fmt: skip
    """Fill the last three."""
    batch, length, _ = mixed_BLG.shape
    heads, both = d_bc_BHLM.shape[1], d_bc_BHLM.shape[3]
    inner = heads * d_x_BLHP.shape[3]
    groups = triton.cdiv(inner, _BLOCK) + triton.cdiv(both, _BLOCK)
    convolve_backward_kernel[(batch * groups,)](
        mixed_BLG, taps_KG, bias_G, d_x_BLHP, d_bc_BHLM, d_sums_BLG, d_taps_B5G, length,
        *mixed_BLG.stride()[:2],
        INNER=inner, M=both, HEADS=heads, GROUPS=groups, TILES=triton.cdiv(length, _ROWS_BACK),
        BLOCK=_BLOCK, ROWS=_ROWS_BACK, num_warps=_WARPS,
    )  # fmt: skip
    convolve(d_sums_BLG, taps_KG, bias_G, d_mixed_BLG, back=True)
