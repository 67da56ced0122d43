"""Kernels of short causal attention, both ways, from the projection's output to what a head reads.

A program holds one head of a group of rows: as many whole sequences as fit into BLOCK, kept apart by a
mask. The kernels are in Gluon, Triton's language of explicit layouts: the tensor memory accelerator brings
all tiles at once, these stay in shared memory, where tensor cores read them, and results replace them there.

A query is of length √K after its norm, and so is a key, so that a score is at most √K and its exponential
needs no shift. What their norms multiply them with is a number a row: it multiplies the scores. `scale` is
one over the root mean square of a row of the layer's input, which is due to the projection's output.
`turn` has cosines, then sines, of the angles by which a row's halves rotate into each other.

HALVES, SCORES and WHOLE are the layouts in which tensor cores leave (BLOCK, HALF), (BLOCK, BLOCK) and
(BLOCK, KEY) products.
"""

import triton.experimental.gluon.language as gl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma, warpgroup_mma

from cellular.decoders.ret.fused.norm import EPSILON

_LOG2_E = gl.constexpr(1.4426950408889634)
_fetch = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # the name of Triton 3.6


@gluon.jit
def _read(tile, PART: gl.constexpr, HALF: gl.constexpr, LAYOUT: gl.constexpr):
    """(BLOCK, HALF) float32, one half of a tile."""
    return tile.slice(PART * HALF, HALF, 1).load(LAYOUT).to(gl.float32)


@gluon.jit
def _write(tile, PART: gl.constexpr, values, HALF: gl.constexpr):
    tile.slice(PART * HALF, HALF, 1).store(values.to(tile.dtype))


@gluon.jit
def _store(ptr, start, tile, group, rows, WIDTH: gl.constexpr, KEY: gl.constexpr):
    """Write a tile to the rows of this program, of a matrix of WIDTH columns."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [gl.num_warps(), 1], [1, 0])
    local = gl.arange(0, tile.shape[0], gl.SliceLayout(1, LAYOUT))
    inside = (local < group) & (start + local < rows)
    ptr += (start + local)[:, None] * WIDTH + gl.arange(0, KEY, gl.SliceLayout(0, LAYOUT))[None, :]
    gl.store(ptr, tile.load(LAYOUT), mask=inside[:, None])


@gluon.jit
def _rotate(tile, turn, scale, HALF: gl.constexpr, LAYOUT: gl.constexpr):
    """Rotate queries or keys where they stand; what their norm multiplies each with, scale included."""
    first, second = _read(tile, 0, HALF, LAYOUT), _read(tile, 1, HALF, LAYOUT)
    cosine, sine = _read(turn, 0, HALF, LAYOUT), _read(turn, 1, HALF, LAYOUT)
    square = (gl.sum(first * first, 1) + gl.sum(second * second, 1)) / (2 * HALF)
    _write(tile, 0, first * cosine - second * sine, HALF)
    _write(tile, 1, second * cosine + first * sine, HALF)
    return gl.rsqrt(square * scale * scale + EPSILON) * scale


@gluon.jit
def _weigh(
    query, key, turn, arrived, scale_ptr, start, rows, positions,
    HALF: gl.constexpr, BLOCK: gl.constexpr, HALVES: gl.constexpr, SCORES: gl.constexpr,
):  # fmt: skip
    """Each row's weights of itself and of those before it in its sequence, the same times the scale of the
    values, and four factors.

    The first two are what the norms multiply queries and keys with. The product of the others, a column and a
    row, is what the scores of rotated queries and keys are multiplied with: one over √K besides.
    """
    row = start + gl.arange(0, BLOCK, gl.SliceLayout(1, HALVES))
    column = start + gl.arange(0, BLOCK, gl.SliceLayout(0, SCORES))
    scale = gl.load(scale_ptr + row, mask=row < rows, other=0.0)
    value_scale = gl.load(scale_ptr + column, mask=column < rows, other=0.0)[None, :]
    mbarrier.wait(arrived.index(0), 0)
    query_factor = _rotate(query, turn, scale, HALF, HALVES)
    key_factor = _rotate(key, turn, scale, HALF, HALVES)
    row_factor = gl.convert_layout(query_factor, gl.SliceLayout(1, SCORES))[:, None] * (2 * HALF) ** -0.5
    column_factor = gl.convert_layout(key_factor, gl.SliceLayout(0, SCORES))[None, :]
    fence_async_shared()
    none = gl.zeros((BLOCK, BLOCK), gl.float32, SCORES)
    score = warpgroup_mma(query, key.permute((1, 0)), none, use_acc=False) * row_factor * column_factor
    local = gl.arange(0, BLOCK, gl.SliceLayout(1, SCORES))[:, None]
    other = gl.arange(0, BLOCK, gl.SliceLayout(0, SCORES))[None, :]
    seen = (other <= local) & (other >= local - local % positions)
    weight = gl.where(seen, gl.exp2(score * _LOG2_E), 0.0)
    weight *= (1.0 / gl.sum(weight, 1))[:, None]
    return weight, weight * value_scale, query_factor, key_factor, row_factor, column_factor


@gluon.jit
def _fetch_rows(qkv, turn, start, head, LATER: gl.constexpr, D: gl.constexpr, KEY: gl.constexpr):
    """Start to bring a head's queries, keys and values of some rows, and the angles, into shared memory.

    Of the two barriers that come with them the first opens when all but the values are there, the second when
    LATER bytes are: the values, and what else the caller fetches by it.
    """
    query = gl.allocate_shared_memory(qkv.dtype, qkv.block_shape, qkv.layout)
    key = gl.allocate_shared_memory(qkv.dtype, qkv.block_shape, qkv.layout)
    value = gl.allocate_shared_memory(qkv.dtype, qkv.block_shape, qkv.layout)
    angles = gl.allocate_shared_memory(turn.dtype, turn.block_shape, turn.layout)
    arrived = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for number in gl.static_range(2):
        mbarrier.init(arrived.index(number), count=1)
    mbarrier.expect(arrived.index(0), 2 * qkv.block_type.nbytes + turn.block_type.nbytes)
    _fetch(turn, [0, 0], arrived.index(0), angles)
    _fetch(qkv, [start, head * KEY], arrived.index(0), query)
    _fetch(qkv, [start, D + head * KEY], arrived.index(0), key)
    mbarrier.expect(arrived.index(1), LATER)
    _fetch(qkv, [start, 2 * D + head * KEY], arrived.index(1), value)
    return query, key, value, angles, arrived


@gluon.jit(do_not_specialize=["positions", "group", "rows"])
def attend_kernel(
    qkv, turn, scale_ptr, y_ptr, positions, group, rows,
    D: gl.constexpr, HALF: gl.constexpr, BLOCK: gl.constexpr,
):  # fmt: skip
    """What one head reads."""
    KEY: gl.constexpr = 2 * HALF
    HALVES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, HALF, 16])
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, BLOCK, 16])
    WHOLE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, KEY, 16])
    dtype: gl.constexpr = qkv.dtype
    head, start = gl.program_id(0), gl.program_id(1) * group
    later: gl.constexpr = qkv.block_type.nbytes
    query, key, value, angles, arrived = _fetch_rows(qkv, turn, start, head, later, D, KEY)
    _, scaled, _, _, _, _ = _weigh(
        query, key, angles, arrived, scale_ptr, start, rows, positions, HALF, BLOCK, HALVES, SCORES
    )
    weight = gl.convert_layout(scaled.to(dtype), gl.DotOperandLayout(0, WHOLE, 2))
    mbarrier.wait(arrived.index(1), 0)
    y = warpgroup_mma(weight, value, gl.zeros((BLOCK, KEY), gl.float32, WHOLE), use_acc=False)
    query.store(y.to(dtype))
    _store(y_ptr + head * KEY, start, query, group, rows, D, KEY)


@gluon.jit
def _gradient(
    d_score, other, own, factor, turn, out, BLOCK: gl.constexpr, HALF: gl.constexpr, LAYOUT: gl.constexpr
):  # fmt: skip
    """That of the projection's queries or keys, into `out`.

    d_score is the gradient of the products of rotated queries and keys, `own` and `other`. `out` may be
    `own`.
    """
    none = gl.zeros((BLOCK, HALF), gl.float32, LAYOUT)
    first = warpgroup_mma(d_score, other.slice(0, HALF, 1), none, use_acc=False)
    second = warpgroup_mma(d_score, other.slice(HALF, HALF, 1), none, use_acc=False)
    product = gl.sum(first * _read(own, 0, HALF, LAYOUT), 1) + gl.sum(second * _read(own, 1, HALF, LAYOUT), 1)
    along = (product * factor * factor / (2 * HALF))[:, None]
    first -= _read(own, 0, HALF, LAYOUT) * along
    second -= _read(own, 1, HALF, LAYOUT) * along
    cosine, sine = _read(turn, 0, HALF, LAYOUT), _read(turn, 1, HALF, LAYOUT)
    _write(out, 0, first * cosine + second * sine, HALF)
    _write(out, 1, second * cosine - first * sine, HALF)


@gluon.jit(do_not_specialize=["positions", "group", "rows"])
def attend_backward_kernel(
    qkv, dy, turn, scale_ptr, d_qkv_ptr, product_ptr, positions, group, rows,
    D: gl.constexpr, HALF: gl.constexpr, HEADS: gl.constexpr, BLOCK: gl.constexpr,
):  # fmt: skip
    """Gradient of the projection's output, for one head, and each row's product of the two.

    Of that product only the values' part is not zero, since the length of queries and keys does not matter.
    """
    KEY: gl.constexpr = 2 * HALF
    HALVES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, HALF, 16])
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, BLOCK, 16])
    dtype: gl.constexpr = qkv.dtype
    SQUARE: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK, BLOCK], dtype)
    head, start = gl.program_id(0), gl.program_id(1) * group
    later: gl.constexpr = qkv.block_type.nbytes + dy.block_type.nbytes
    query, key, value, angles, arrived = _fetch_rows(qkv, turn, start, head, later, D, KEY)
    d_out = gl.allocate_shared_memory(dtype, dy.block_shape, dy.layout)
    _fetch(dy, [start, head * KEY], arrived.index(1), d_out)
    square = gl.allocate_shared_memory(dtype, [BLOCK, BLOCK], SQUARE)
    weight, scaled, query_factor, key_factor, row_factor, column_factor = _weigh(
        query, key, angles, arrived, scale_ptr, start, rows, positions, HALF, BLOCK, HALVES, SCORES
    )
    square.store(scaled.to(dtype))
    fence_async_shared()
    mbarrier.wait(arrived.index(1), 0)
    none = gl.zeros((BLOCK, BLOCK), gl.float32, SCORES)
    product = scaled * warpgroup_mma(d_out, value.permute((1, 0)), none, use_acc=False)
    d_score = (product - weight * gl.sum(product, 1)[:, None]) * row_factor * column_factor

    total = gl.zeros((BLOCK,), gl.float32, gl.SliceLayout(1, HALVES))
    none = gl.zeros((BLOCK, HALF), gl.float32, HALVES)
    for part in gl.static_range(2):
        d_half = d_out.slice(part * HALF, HALF, 1)
        d_value = warpgroup_mma(square.permute((1, 0)), d_half, none, use_acc=False)
        total += gl.sum(d_value * _read(value, part, HALF, HALVES), 1)
        _write(value, part, d_value, HALF)
    local = gl.arange(0, BLOCK, gl.SliceLayout(1, HALVES))
    inside = (local < group) & (start + local < rows)
    gl.store(product_ptr + (start + local) * HEADS + head, total, mask=inside)
    square.store(d_score.to(dtype))
    fence_async_shared()
    # d_out has been read, and queries are still needed for the keys' gradient.
    _gradient(square, key, query, query_factor, angles, d_out, BLOCK, HALF, HALVES)
    _gradient(square.permute((1, 0)), query, key, key_factor, angles, key, BLOCK, HALF, HALVES)
    d_query_ptr = d_qkv_ptr + head * KEY
    _store(d_query_ptr + 2 * D, start, value, group, rows, 3 * D, KEY)
    _store(d_query_ptr, start, d_out, group, rows, 3 * D, KEY)
    _store(d_query_ptr + D, start, key, group, rows, 3 * D, KEY)
