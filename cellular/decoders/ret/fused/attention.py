"""Kernels of short causal attention, both ways, from the projection's output to what a head reads.

A program holds one head of a group of rows: as many whole sequences as fit into BLOCK, kept apart by a
mask. The softmax never leaves registers; the backward pass computes it again. A query and a key are of
length √K, so that a score is at most √K and its exponential needs no shift.

`scale` is one over the root mean square of a row of the layer's input, which is due to the projection's
output; `factor` is what queries and keys are multiplied with by that and their own norm.
"""

import triton
import triton.language as tl

from cellular.decoders.ret.fused.norm import EPSILON

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(group, rows, local, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    """Of this program, and which of them count: all of them where a group fills the block."""
    row = tl.program_id(1) * group + local
    if EVEN:
        return row, tl.full((BLOCK,), 1, tl.int1)
    return row, (local < group) & (row < rows)


@triton.jit
def _turn(ptr, inside, scale, cosine_ptr, sine_ptr, factor_ptr, HALF: tl.constexpr):
    """Normalise and rotate queries or keys where they stand, as the halves that rotate into each other."""
    valid = inside[:, None]
    first = tl.load(ptr, mask=valid, other=0.0).to(tl.float32)
    second = tl.load(ptr + HALF, mask=valid, other=0.0).to(tl.float32)
    square = (tl.sum(first * first, 1) + tl.sum(second * second, 1)) / (2 * HALF)
    factor = tl.rsqrt(square * scale * scale + EPSILON) * scale
    tl.store(factor_ptr, factor, mask=inside)
    cosine, sine = tl.load(cosine_ptr) * factor[:, None], tl.load(sine_ptr) * factor[:, None]
    turned1 = (first * cosine - second * sine).to(ptr.dtype.element_ty)
    turned2 = (second * cosine + first * sine).to(ptr.dtype.element_ty)
    tl.store(ptr, turned1, mask=valid)
    tl.store(ptr + HALF, turned2, mask=valid)
    return turned1, turned2


@triton.jit
def _softmax(score, local, positions, HALF: tl.constexpr):
    """Each row sees itself and those before it in its sequence."""
    sequence = local // positions
    seen = (sequence[:, None] == sequence) & (local[:, None] >= local)
    factor: tl.constexpr = _LOG2_E / (2 * HALF) ** 0.5
    weight = tl.where(seen, tl.exp2(score * factor), 0.0)
    return weight / tl.sum(weight, 1)[:, None]


@triton.jit(do_not_specialize=["positions", "group", "rows"])
def attend_kernel(
    qkv_ptr, scale_ptr, cosine_ptr, sine_ptr, factor_ptr, y_ptr, positions, group, rows,
    D: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What one head reads; its queries and keys are left normalised and rotated."""
    head, local, half = tl.program_id(0), tl.arange(0, BLOCK), tl.arange(0, HALF)
    row, inside = _rows(group, rows, local, EVEN, BLOCK)
    valid = inside[:, None]
    query_ptr = qkv_ptr + row[:, None] * (3 * D) + head * 2 * HALF + half
    value_ptr = query_ptr + 2 * D
    angle = (local % positions)[:, None] * HALF + half
    cosine_ptr, sine_ptr, factor_ptr = (
        cosine_ptr + angle,
        sine_ptr + angle,
        factor_ptr + row * 2 * HEADS + head,
    )
    scale = tl.load(scale_ptr + row, mask=inside, other=0.0)
    query1, query2 = _turn(query_ptr, inside, scale, cosine_ptr, sine_ptr, factor_ptr, HALF)
    key1, key2 = _turn(query_ptr + D, inside, scale, cosine_ptr, sine_ptr, factor_ptr + HEADS, HALF)
    weight = _softmax(tl.dot(query2, key2.T, tl.dot(query1, key1.T)), local, positions, HALF)
    weight = (weight * tl.load(scale_ptr + row, mask=inside, other=0.0)).to(query1.dtype)
    y_ptr += row[:, None] * D + head * 2 * HALF + half
    for part in tl.static_range(2):
        value = tl.load(value_ptr + part * HALF, mask=valid, other=0.0)
        tl.store(y_ptr + part * HALF, tl.dot(weight, value).to(query1.dtype), mask=valid)


@triton.jit
def _store_gradient(d1, d2, ptr, inside, factor_ptr, cosine_ptr, sine_ptr, d_ptr, HALF: tl.constexpr):
    """Back through norm and rotation, which keeps the products that the norm needs.

    What came from memory is read again: registers are scarcer.
    """
    valid = inside[:, None]
    first = tl.load(ptr, mask=valid, other=0.0).to(tl.float32)
    second = tl.load(ptr + HALF, mask=valid, other=0.0).to(tl.float32)
    mean = ((tl.sum(d1 * first, 1) + tl.sum(d2 * second, 1)) / (2 * HALF))[:, None]
    d1 -= first * mean
    d2 -= second * mean
    factor = tl.load(factor_ptr, mask=inside, other=0.0)[:, None]
    cosine, sine = tl.load(cosine_ptr) * factor, tl.load(sine_ptr) * factor
    tl.store(d_ptr, (d1 * cosine + d2 * sine).to(d_ptr.dtype.element_ty), mask=valid)
    tl.store(d_ptr + HALF, (d2 * cosine - d1 * sine).to(d_ptr.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["positions", "group", "rows"])
def attend_backward_kernel(
    qkv_ptr, scale_ptr, cosine_ptr, sine_ptr, factor_ptr, dy_ptr, d_qkv_ptr, product_ptr,
    positions, group, rows,
    D: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the projection's output, for one head, and each row's product of the two.

    Of that product only the values' part is not zero, since the length of queries and keys does not matter.
    """
    head, local, half = tl.program_id(0), tl.arange(0, BLOCK), tl.arange(0, HALF)
    row, inside = _rows(group, rows, local, EVEN, BLOCK)
    valid = inside[:, None]
    place = row[:, None] * (3 * D) + head * 2 * HALF + half
    query_ptr, d_query_ptr = qkv_ptr + place, d_qkv_ptr + place
    key_ptr, d_key_ptr = query_ptr + D, d_query_ptr + D
    query1 = tl.load(query_ptr, mask=valid, other=0.0)
    query2 = tl.load(query_ptr + HALF, mask=valid, other=0.0)
    key1 = tl.load(key_ptr, mask=valid, other=0.0)
    key2 = tl.load(key_ptr + HALF, mask=valid, other=0.0)
    weight = _softmax(tl.dot(query2, key2.T, tl.dot(query1, key1.T)), local, positions, HALF)
    turned, scale = weight.to(query1.dtype).T, tl.load(scale_ptr + row, mask=inside, other=0.0)[:, None]
    d_weight = tl.zeros((BLOCK, BLOCK), tl.float32)
    for part in tl.static_range(2):
        dy = tl.load(dy_ptr + row[:, None] * D + (2 * head + part) * HALF + half, mask=valid, other=0.0)
        value = tl.load(key_ptr + D + part * HALF, mask=valid, other=0.0)
        d_weight = tl.dot(dy, value.T, d_weight)
        d_value = (tl.dot(turned, dy) * scale).to(dy.dtype)
        tl.store(d_key_ptr + D + part * HALF, d_value, mask=valid)
    product = weight * d_weight * tl.load(scale_ptr + row, mask=inside, other=0.0)
    tl.store(product_ptr + row * HEADS + head, tl.sum(product, 0), mask=inside)
    d_score = product - weight * tl.sum(product, 1)[:, None]
    d_score = (d_score * (2 * HALF) ** -0.5).to(query1.dtype)
    angle = (local % positions)[:, None] * HALF + half
    cosine_ptr, sine_ptr, factor_ptr = (
        cosine_ptr + angle,
        sine_ptr + angle,
        factor_ptr + row * 2 * HEADS + head,
    )
    d1, d2 = tl.dot(d_score, key1), tl.dot(d_score, key2)
    _store_gradient(d1, d2, query_ptr, inside, factor_ptr, cosine_ptr, sine_ptr, d_query_ptr, HALF)
    d_score = d_score.T
    d1, d2 = tl.dot(d_score, query1), tl.dot(d_score, query2)
    _store_gradient(d1, d2, key_ptr, inside, factor_ptr + HEADS, cosine_ptr, sine_ptr, d_key_ptr, HALF)
