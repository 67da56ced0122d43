"""Triton kernels of a rule's hidden layer, (N, C) states of N = B X Y Z cells in order.

Neighbours have the numbers of `perceive.offsets(6)`: 0 the cell itself, 1 to 3 those before it along x, y and
z, 4 to 6 those after it along z, y and x; so number 7 - k looks back along number k. Weights as PyTorch keeps
them: inward (H, 7 C), outward (C, H).
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 64  # cells of a program; more, or other warps than four, were no faster on an H200
_PRECISION = tl.constexpr("tf32x3")  # of float32 operands, as exact as float32


class _Shape(NamedTuple):
    """What the kernels are compiled for, in the order of their arguments."""

    X: int
    Y: int
    Z: int
    C: int
    H: int
    WIDE: int  # channels, up to a power of 2
    BLOCK_C: int
    BLOCK_H: int
    ROWS: int


@triton.jit
def _neighbour(row, number, X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr):
    """Rows of the cells' neighbours of a number, and whether they exist."""
    after = number > 3
    axis = tl.where(after, 6 - number, number - 1)
    step = tl.where(number == 0, 0, tl.where(after, 1, -1))
    stride = tl.where(axis == 0, Y * Z, tl.where(axis == 1, Z, 1))
    length = tl.where(axis == 0, X, tl.where(axis == 1, Y, Z))
    place = row // stride % length + step
    return row + step * stride, (place >= 0) & (place < length)


@triton.jit
def _load(ptr, row, there, stride, column, WIDTH: tl.constexpr):
    """(rows, columns) of a matrix, zero where there is none."""
    mask = there[:, None] & (column < WIDTH)[None, :]
    return tl.load(ptr + row.to(tl.int64)[:, None] * stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def _store(ptr, values, row, there, column, WIDTH: tl.constexpr):
    mask = there[:, None] & (column < WIDTH)[None, :]
    target = ptr + row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    tl.store(target, values.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def _perceive(
    seen_ptr, inward_ptr, row, inside, unit,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr, H: tl.constexpr,
    BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(rows, units) float32: some hidden units of some cells, before the GELU."""
    total = tl.zeros((row.shape[0], unit.shape[0]), tl.float32)
    BLOCKS: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    for part in tl.range(0, 7 * BLOCKS, num_stages=STAGES):
        number, channel = part // BLOCKS, part % BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C)
        near, there = _neighbour(row, number, X, Y, Z)
        seen = _load(seen_ptr, near, there & inside, C, channel, C)
        weight = _load(inward_ptr + number * C, unit, unit < H, 7 * C, channel, C)
        total = tl.dot(seen, tl.trans(weight), total, input_precision=_PRECISION)
    return total


@triton.jit
def forward_kernel(
    seen_ptr, inward_ptr, outward_ptr, y_ptr, cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """All of ROWS cells."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside, channel = row < cells, tl.arange(0, WIDE)
    y = tl.zeros((ROWS, WIDE), tl.float32)
    for first in range(0, H, BLOCK_H):
        unit = first + tl.arange(0, BLOCK_H)
        before = _perceive(seen_ptr, inward_ptr, row, inside, unit, X, Y, Z, C, H, BLOCK_C, STAGES)
        hidden = before * (0.5 + 0.5 * tl.erf(before * 0.7071067811865476))
        weight = _load(outward_ptr, channel, channel < C, H, unit, H)
        y = tl.dot(hidden.to(weight.dtype), tl.trans(weight), y, input_precision=_PRECISION)
    _store(y_ptr, y, row, inside, channel, C)


@triton.jit
def hidden_backward_kernel(
    seen_ptr, inward_ptr, outward_ptr, d_y_ptr, hidden_ptr, d_before_ptr, cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """BLOCK_H hidden units of ROWS cells, and the gradients by what they were before the GELU."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside, channel = row < cells, tl.arange(0, WIDE)
    unit = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    before = _perceive(seen_ptr, inward_ptr, row, inside, unit, X, Y, Z, C, H, BLOCK_C, STAGES)
    below = 0.5 + 0.5 * tl.erf(before * 0.7071067811865476)
    _store(hidden_ptr, before * below, row, inside, unit, H)
    d_y = _load(d_y_ptr, row, inside, C, channel, C)
    weight = _load(outward_ptr, channel, channel < C, H, unit, H)
    d_hidden = tl.dot(d_y, weight, input_precision=_PRECISION)
    density = 0.3989422804014327 * tl.exp(-0.5 * before * before)
    _store(d_before_ptr, d_hidden * (below + before * density), row, inside, unit, H)


@triton.jit
def seen_backward_kernel(
    d_before_ptr, inward_ptr, d_seen_ptr, cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The gradients by the states of ROWS cells: of all that saw them."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside, channel = row < cells, tl.arange(0, WIDE)
    total = tl.zeros((ROWS, WIDE), tl.float32)
    BLOCKS: tl.constexpr = (H + BLOCK_H - 1) // BLOCK_H
    for part in tl.range(0, 7 * BLOCKS, num_stages=STAGES):
        number, unit = part // BLOCKS, part % BLOCKS * BLOCK_H + tl.arange(0, BLOCK_H)
        near, there = _neighbour(row, tl.where(number == 0, 0, 7 - number), X, Y, Z)
        d_before = _load(d_before_ptr, near, there & inside, H, unit, H)
        weight = _load(inward_ptr + number * C, unit, unit < H, 7 * C, channel, C)
        total = tl.dot(d_before, weight, total, input_precision=_PRECISION)
    _store(d_seen_ptr, total, row, inside, channel, C)


@triton.jit
def weight_backward_kernel(
    left_ptr, right_ptr, sums_ptr, cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr, H: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_H: tl.constexpr, ROWS: tl.constexpr, STAGES: tl.constexpr,
    SEEN: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """(H, SEEN C): left (N, H) times right (N, C) as a neighbour sees it, of TILES times ROWS cells."""
    unit = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    number, channel = tl.program_id(2), tl.arange(0, WIDE)
    total = tl.zeros((BLOCK_H, WIDE), tl.float32)
    for tile in tl.range(0, TILES, num_stages=STAGES):
        row = (tl.program_id(0) * TILES + tile) * ROWS + tl.arange(0, ROWS)
        near, there = _neighbour(row, number, X, Y, Z)
        left = _load(left_ptr, row, row < cells, H, unit, H)
        right = _load(right_ptr, near, there & (row < cells), C, channel, C)
        total = tl.dot(tl.trans(left), right, total, input_precision=_PRECISION)
    sums_ptr += tl.program_id(0).to(tl.int64) * H * SEEN * C + number * C
    mask = (unit < H)[:, None] & (channel < C)[None, :]
    tl.store(sums_ptr + unit[:, None] * (SEEN * C) + channel[None, :], total, mask=mask)


def forward(seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor) -> Tensor:
    """The layer's answer; all tensors are contiguous."""
    y_BXYZC, cells = torch.empty_like(seen_BXYZC), seen_BXYZC[..., 0].numel()
    forward_kernel[(triton.cdiv(cells, _ROWS),)](
        seen_BXYZC, inward_HV, outward_CH, y_BXYZC, cells, *_shape(seen_BXYZC, inward_HV), STAGES=3
    )
    return y_BXYZC


def backward(
    seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor, d_y_BXYZC: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by seen, inward and outward; all tensors are contiguous."""
    shape = _shape(seen_BXYZC, inward_HV)
    cells = seen_BXYZC[..., 0].numel()
    tiles, blocks = triton.cdiv(cells, _ROWS), triton.cdiv(shape.H, shape.BLOCK_H)
    d_seen_BXYZC = torch.empty_like(seen_BXYZC)
    hidden_NH, d_before_NH = seen_BXYZC.new_empty(2, cells, shape.H)
    hidden_backward_kernel[(tiles, blocks)](
        seen_BXYZC, inward_HV, outward_CH, d_y_BXYZC, hidden_NH, d_before_NH, cells, *shape, STAGES=3
    )
    seen_backward_kernel[(tiles,)](d_before_NH, inward_HV, d_seen_BXYZC, cells, *shape, STAGES=3)
    d_inward_HV = _weight_gradient(d_before_NH, seen_BXYZC, 7, shape)
    d_outward_HC = _weight_gradient(hidden_NH, d_y_BXYZC, 1, shape)
    return d_seen_BXYZC, d_inward_HV.to(inward_HV.dtype), d_outward_HC.t().to(outward_CH.dtype).contiguous()


def _weight_gradient(left_NH: Tensor, right_BXYZC: Tensor, seen: int, shape: _Shape) -> Tensor:
    """(H, seen C) float32: sums of as many programs as keep a GPU busy, each over its share of the cells."""
    cells, blocks = len(left_NH), triton.cdiv(shape.H, shape.BLOCK_H)
    # A power of 2: few kernels for many sizes.
    tiles = triton.next_power_of_2(triton.cdiv(cells * blocks * seen, 512 * _ROWS))
    shares = triton.cdiv(cells, tiles * _ROWS)
    sums = left_NH.new_empty(shares, shape.H, seen * shape.C, dtype=torch.float32)
    weight_backward_kernel[(shares, blocks, seen)](
        left_NH, right_BXYZC, sums, cells, *shape, SEEN=seen, TILES=tiles, STAGES=4
    )
    return sums.sum(0)


def _shape(seen_BXYZC: Tensor, inward_HV: Tensor) -> _Shape:
    _, *size, channels = seen_BXYZC.shape
    hidden, wide = len(inward_HV), max(16, triton.next_power_of_2(channels))
    block = 64 if channels % 64 == 0 else 32  # 96 channels are three blocks without a remainder
    block_hidden = 128 if hidden % 128 == 0 else 64
    return _Shape(size[0], size[1], size[2], channels, hidden, wide, min(block, wide), block_hidden, _ROWS)
