"""Kernels of attention: the projection to queries, keys and values, and short causal attention both ways.

A program of attention holds one head of a group: as many whole sequences as fit into BLOCK rows, kept apart
by a mask. The softmax never leaves registers; the backward pass computes it again.

The projection moves whole tiles, by TMA; attention masks rows, and loads them all before it computes. `scale`
is one over the root mean square of a row of the layer's input, `head_scale` that of its queries and keys.
"""

import triton
import triton.language as tl

_EPSILON = tl.constexpr(1e-6)
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["rows", "positions"], do_not_specialize_on_alignment=["scale_ptr"])
def project_kernel(
    x, weight, scale_ptr, cosine_ptr, sine_ptr, qkv, head_scale_ptr, rows, positions,
    D: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One of six heads of BLOCK rows: queries and keys normalised and rotated, values as they are."""
    head = tl.program_id(0)
    column = head * 2 * HALF
    start = tl.program_id(1) * BLOCK
    row = start + tl.arange(0, BLOCK)
    inside = row < rows
    first = tl.zeros((BLOCK, HALF), tl.float32)
    second = tl.zeros((BLOCK, HALF), tl.float32)
    for part in range(0, D, CHUNK):
        chunk = x.load([start, part])
        first = tl.dot(chunk, weight.load([column, part]).T, first)
        second = tl.dot(chunk, weight.load([column + HALF, part]).T, second)
    scale = tl.load(scale_ptr + row, mask=inside, other=1.0)[:, None]
    first *= scale
    second *= scale
    if head < 4:
        head_scale = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / (2 * HALF) + _EPSILON)
        tl.store(head_scale_ptr + row * 4 + head, head_scale, mask=inside)
        angle = (row % positions)[:, None] * HALF + tl.arange(0, HALF)
        cosine = tl.load(cosine_ptr + angle) * head_scale[:, None]
        sine = tl.load(sine_ptr + angle) * head_scale[:, None]
        qkv.store([start, column], (first * cosine - second * sine).to(qkv.dtype))
        qkv.store([start, column + HALF], (second * cosine + first * sine).to(qkv.dtype))
    else:
        qkv.store([start, column], first.to(qkv.dtype))
        qkv.store([start, column + HALF], second.to(qkv.dtype))


@triton.jit
def _attention(score, local, positions, scale):
    """Softmax of the scores of one group: each row sees itself and those before it in its sequence."""
    sequence = local // positions
    seen = (sequence[:, None] == sequence) & (local[:, None] >= local)
    score = tl.where(seen, score * (scale * _LOG2_E), float("-inf"))
    weight = tl.exp2(score - tl.max(score, 1)[:, None])
    return weight / tl.sum(weight, 1)[:, None]


@triton.jit(do_not_specialize=["rows", "positions", "group_rows"])
def attend_kernel(
    qkv_ptr, y_ptr, rows, positions, group_rows, scale, D: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr
):
    """What one head of one group reads."""
    local = tl.arange(0, BLOCK)
    row = tl.program_id(0) * group_rows + local
    valid = ((local < group_rows) & (row < rows))[:, None]
    column = tl.program_id(1) * K + tl.arange(0, K)
    source = qkv_ptr + row[:, None] * (3 * D) + column
    query = tl.load(source, mask=valid, other=0.0)
    key = tl.load(source + D, mask=valid, other=0.0)
    value = tl.load(source + 2 * D, mask=valid, other=0.0)
    weight = _attention(tl.dot(query, tl.trans(key)), local, positions, scale)
    y = tl.dot(weight.to(value.dtype), value)
    tl.store(y_ptr + row[:, None] * D + column, y.to(value.dtype), mask=valid)


@triton.jit
def _unrotate(d_first, d_second, first, second, head_scale, cosine, sine, K: tl.constexpr):
    """Gradients before norm and rotation; a rotation keeps the products that the norm needs."""
    first = first.to(tl.float32)
    second = second.to(tl.float32)
    mean = (tl.sum(d_first * first, 1) + tl.sum(d_second * second, 1)) / K
    d_first = (d_first - first * mean[:, None]) * head_scale[:, None]
    d_second = (d_second - second * mean[:, None]) * head_scale[:, None]
    return d_first * cosine + d_second * sine, d_second * cosine - d_first * sine


@triton.jit(
    do_not_specialize=["rows", "positions", "group_rows"], do_not_specialize_on_alignment=["scale_ptr"]
)
def attend_backward_kernel(
    qkv_ptr, dy_ptr, cosine_ptr, sine_ptr, scale_ptr, head_scale_ptr, d_qkv_ptr,
    rows, positions, group_rows, scale, D: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the projection's output times the row's scale, for one head of one group.

    That product with the layer's input, before its norm, is the gradient of the weights.
    """
    head = tl.program_id(1)
    local = tl.arange(0, BLOCK)
    half = tl.arange(0, HALF)
    column = tl.arange(0, 2 * HALF)
    row = tl.program_id(0) * group_rows + local
    inside = (local < group_rows) & (row < rows)
    valid = inside[:, None]
    first = row[:, None] * (3 * D) + head * 2 * HALF
    query1 = tl.load(qkv_ptr + first + half, mask=valid, other=0.0)
    query2 = tl.load(qkv_ptr + first + HALF + half, mask=valid, other=0.0)
    key1 = tl.load(qkv_ptr + first + D + half, mask=valid, other=0.0)
    key2 = tl.load(qkv_ptr + first + D + HALF + half, mask=valid, other=0.0)
    value = tl.load(qkv_ptr + first + 2 * D + column, mask=valid, other=0.0)
    dy = tl.load(dy_ptr + row[:, None] * D + head * 2 * HALF + column, mask=valid, other=0.0)
    row_scale = tl.load(scale_ptr + row, mask=inside, other=0.0)[:, None]

    score = tl.dot(query2, tl.trans(key2), tl.dot(query1, tl.trans(key1)))
    weight = _attention(score, local, positions, scale)
    d_value = tl.dot(tl.trans(weight.to(dy.dtype)), dy) * row_scale
    tl.store(d_qkv_ptr + first + 2 * D + column, d_value.to(dy.dtype), mask=valid)
    d_weight = tl.dot(dy, tl.trans(value))
    d_score = weight * (d_weight - tl.sum(weight * d_weight, 1)[:, None])
    d_score = (d_score * scale).to(dy.dtype)

    angle = (row % positions)[:, None] * HALF + half
    cosine = tl.load(cosine_ptr + angle)
    sine = tl.load(sine_ptr + angle)
    head_scale = tl.load(head_scale_ptr + row * 4 + head, mask=inside, other=0.0)
    d1, d2 = tl.dot(d_score, key1), tl.dot(d_score, key2)
    d1, d2 = _unrotate(d1, d2, query1, query2, head_scale, cosine, sine, 2 * HALF)
    tl.store(d_qkv_ptr + first + half, (d1 * row_scale).to(dy.dtype), mask=valid)
    tl.store(d_qkv_ptr + first + HALF + half, (d2 * row_scale).to(dy.dtype), mask=valid)
    head_scale = tl.load(head_scale_ptr + row * 4 + 2 + head, mask=inside, other=0.0)
    turned = tl.trans(d_score)
    d1, d2 = tl.dot(turned, query1), tl.dot(turned, query2)
    d1, d2 = _unrotate(d1, d2, key1, key2, head_scale, cosine, sine, 2 * HALF)
    tl.store(d_qkv_ptr + first + D + half, (d1 * row_scale).to(dy.dtype), mask=valid)
    tl.store(d_qkv_ptr + first + D + HALF + half, (d2 * row_scale).to(dy.dtype), mask=valid)
