"""Kernels of what enters the first application: from prefix states and pieces to rows, and back.

Texts have P prefix states and L pieces: T = P + L positions.
"""

import triton
import triton.language as tl

from cellular.decoders.ret.fused.norm import inverse_rms


@triton.jit
def _mean_prefix(at, valid, D: tl.constexpr, P: tl.constexpr):
    """Float32: the mean of the P prefix states of which the first are at those places."""
    mean = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    for number in tl.static_range(1, P):
        mean += tl.load(at + number * D, mask=valid, other=0.0).to(tl.float32)
    return mean / P


@triton.jit
def _piece_rows(
    pieces_ptr, table_ptr, text, position, column, valid, length, D: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """(R, D) float32: the rows' pieces in the table, times the root of D."""
    piece = tl.load(pieces_ptr + text * length + position - P, mask=valid & (position >= P), other=0)
    return tl.load(table_ptr + piece[:, None] * D + column).to(tl.float32) * D**0.5


@triton.jit(do_not_specialize=["batch", "positions"])
def enter_kernel(
    prefix_ptr, pieces_ptr, table_ptr, gain_ptr, norm_ptr, step_ptr, x_ptr, scale_ptr,
    batch, positions, D: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Inputs after their norm, the first step added, and each row's scale; beyond the texts, of zeros."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, D)
    text, position = row // positions, row % positions
    inside = text < batch
    valid = inside[:, None]
    mean = _mean_prefix(prefix_ptr + (text * P * D)[:, None] + column, valid, D, P)
    x = _piece_rows(pieces_ptr, table_ptr, text, position, column, inside, positions - P, D, P)
    x += tl.load(gain_ptr + column).to(tl.float32) * mean
    prefix_at = prefix_ptr + (text * P + tl.minimum(position, P - 1))[:, None] * D + column
    prefix = tl.load(prefix_at, mask=valid, other=0.0).to(tl.float32)
    x = tl.where(valid, tl.where((position < P)[:, None], prefix, x), 0.0)
    x *= inverse_rms(x, D)[:, None] * tl.load(norm_ptr + column).to(tl.float32)
    x = (x + tl.load(step_ptr + column)).to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + row[:, None] * D + column, x)
    tl.store(scale_ptr + row, inverse_rms(x.to(tl.float32), D))


@triton.jit
def enter_backward_kernel(
    prefix_ptr, pieces_ptr, table_ptr, gain_ptr, norm_ptr, d_x_ptr,
    d_input_ptr, d_prefix_ptr, d_mean_ptr, d_norm_ptr,
    positions: tl.constexpr, D: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of one text's inputs before their norm, and its part of that of the norm's gain.

    They are those of its pieces, of its prefix states but for their mean, and the sum of its pieces', which
    times its gain is that of the mean.
    """
    text = tl.program_id(0)
    column = tl.arange(0, D)
    norm = tl.load(norm_ptr + column).to(tl.float32)
    gain = tl.load(gain_ptr + column).to(tl.float32)
    mean = gain * _mean_prefix(prefix_ptr + text * P * D + column, column < D, D, P)
    d_mean = tl.zeros((D,), tl.float32)
    d_norm = tl.zeros((D,), tl.float32)
    for start in range(0, positions, ROWS):
        position = start + tl.arange(0, ROWS)
        inside = position < positions
        valid, is_prefix, is_piece = (
            inside[:, None],
            (position < P)[:, None],
            (inside & (position >= P))[:, None],
        )
        x = mean + _piece_rows(pieces_ptr, table_ptr, text, position, column, inside, positions - P, D, P)
        prefix_at = (text * P + position)[:, None] * D + column
        x = tl.where(is_piece, x, tl.load(prefix_ptr + prefix_at, mask=is_prefix, other=0.0).to(tl.float32))
        factor = inverse_rms(x, D)[:, None]
        x *= factor
        d_x_at = d_x_ptr + (text * positions + position)[:, None] * D + column
        d_x = tl.load(d_x_at, mask=valid, other=0.0).to(tl.float32)
        d_norm += tl.sum(d_x * x, 0)
        d_x *= norm
        d_x = (d_x - x * (tl.sum(d_x * x, 1) / D)[:, None]) * factor
        tl.store(d_prefix_ptr + prefix_at, d_x, mask=is_prefix)
        d_mean += tl.sum(tl.where(is_piece, d_x, 0.0), 0)
        place = (text * (positions - P) + position - P)[:, None] * D + column
        tl.store(d_input_ptr + place, d_x.to(d_input_ptr.dtype.element_ty), mask=is_piece)
    tl.store(d_mean_ptr + text * D + column, d_mean)
    tl.store(d_norm_ptr + text * D + column, d_norm)


@triton.jit(do_not_specialize=["count"])
def table_backward_kernel(
    d_input, pieces_ptr, d_table_ptr, count, V: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Sums of the gradients of each of WIDTH pieces over some rows, ROWS at each of so many steps.

    It is a product with a matrix of ones where row and piece belong together, which is never written.
    """
    piece = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH, D), tl.float32)
    for step in range(STEPS):
        start = (tl.program_id(1) * STEPS + step) * ROWS
        row = start + tl.arange(0, ROWS)
        own = tl.load(pieces_ptr + row, mask=row < count, other=-1)
        ones = (piece[:, None] == own).to(d_input.dtype)
        total = tl.dot(ones, d_input.load([start, 0]), total)
    at = (tl.program_id(1) * V + piece)[:, None] * D + tl.arange(0, D)
    tl.store(d_table_ptr + at, total * D**0.5)
