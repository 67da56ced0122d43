"""Greedy decoding and sampling in one launch: each program writes the texts of its rows to their end.

Rows need nothing of each other, so a program keeps its BLOCK states in registers through all applications and
pieces. Weights (0.9 MB in bf16) come from the L2 cache, keys and values from global memory; queries and what
attention reads pass through a scratch row, since their next reader is another thread of the program.
"""

import triton
import triton.language as tl

from cellular.decoders.ret.fused.norm import EPSILON, inverse_rms


@triton.jit
def _project(
    x,
    scale,
    weight_ptr,
    cosine,
    sine,
    query_ptr,
    key_ptr,
    value_ptr,
    row,
    cached,
    valid,
    D: tl.constexpr,
    HALF: tl.constexpr,
):
    """Write BLOCK queries to scratch, keys and values to the cache."""
    column = tl.arange(0, D)
    half = tl.arange(0, HALF)
    for head in range(4):
        weights = weight_ptr + (head * 2 * HALF + half)[:, None] * D + column
        first = tl.dot(x, tl.trans(tl.load(weights))) * scale[:, None]
        second = tl.dot(x, tl.trans(tl.load(weights + HALF * D))) * scale[:, None]
        head_scale = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / (2 * HALF) + EPSILON)
        first *= head_scale[:, None]
        second *= head_scale[:, None]
        if head < 2:
            out = query_ptr + row[:, None] * D + head * 2 * HALF + half
        else:
            out = key_ptr + cached[:, None] + (head - 2) * 2 * HALF + half
        tl.store(out, (first * cosine - second * sine).to(x.dtype), mask=valid)
        tl.store(out + HALF, (second * cosine + first * sine).to(x.dtype), mask=valid)
    for part in range(4):
        weights = weight_ptr + (2 * D + part * HALF + half)[:, None] * D + column
        value = tl.dot(x, tl.trans(tl.load(weights))) * scale[:, None]
        tl.store(value_ptr + cached[:, None] + part * HALF + half, value.to(x.dtype), mask=valid)


@triton.jit
def _attend(
    query_ptr,
    key_ptr,
    value_ptr,
    row,
    start,
    last,
    valid,
    D: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Replace each row's query in scratch by what it reads of its positions up to `last`."""
    span = tl.arange(0, SPAN)
    for head in range(D // K):
        column = head * K + tl.arange(0, K)
        query = tl.load(query_ptr + row[:, None] * D + column, mask=valid, other=0.0).to(tl.float32)
        query *= K**-0.5 * 1.4426950408889634
        top = tl.full((BLOCK,), -1e30, tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        y = tl.zeros((BLOCK, K), tl.float32)
        for first in range(0, last + 1, SPAN):
            place = start[:, None, None] + (first + span)[None, :, None] * D + column[None, None, :]
            seen = valid[:, :, None] & (first + span <= last)[None, :, None]
            key = tl.load(key_ptr + place, mask=seen, other=0.0).to(tl.float32)
            value = tl.load(value_ptr + place, mask=seen, other=0.0).to(tl.float32)
            score = tl.sum(query[:, None, :] * key, 2)
            score = tl.where((first + span <= last)[None, :], score, -1e30)
            new_top = tl.maximum(top, tl.max(score, 1))
            weight = tl.exp2(score - new_top[:, None])
            decay = tl.exp2(top - new_top)
            total = total * decay + tl.sum(weight, 1)
            y = y * decay[:, None] + tl.sum(weight[:, :, None] * value, 1)
            top = new_top
        y = (y / total[:, None]).to(query_ptr.dtype.element_ty)
        tl.store(query_ptr + row[:, None] * D + column, y, mask=valid)


@triton.jit
def _perceive(
    x,
    y_ptr,
    out_weight_ptr,
    in_ptr,
    out_ptr,
    row,
    valid,
    D: tl.constexpr,
    INNER: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Add attention's output projection, then the MLP's answer."""
    column = tl.arange(0, D)
    for start in range(0, D, CHUNK):
        part = start + tl.arange(0, CHUNK)
        y = tl.load(y_ptr + row[:, None] * D + part, mask=valid, other=0.0)
        x = tl.dot(y, tl.trans(tl.load(out_weight_ptr + column[:, None] * D + part)), x)
    scale = inverse_rms(x, D)
    narrow = x.to(y_ptr.dtype.element_ty)
    for start in range(0, INNER, CHUNK):
        part = start + tl.arange(0, CHUNK)
        inner = tl.dot(narrow, tl.trans(tl.load(in_ptr + part[:, None] * D + column)))
        inner = tl.maximum(inner * scale[:, None], 0.0)
        weights = tl.load(out_ptr + column[:, None] * INNER + part)
        x = tl.dot((inner * inner).to(y_ptr.dtype.element_ty), tl.trans(weights), x)
    return x


@triton.jit
def _choose(
    x,
    head_ptr,
    bias_ptr,
    inverse_temperature,
    seed,
    draw,
    D: tl.constexpr,
    V: tl.constexpr,
    SAMPLE: tl.constexpr,
):
    """The best next piece of each row; with Gumbel noise added, a sample of the softmax."""
    vocabulary = tl.arange(0, V)
    scale = inverse_rms(x, D)
    weights = tl.load(head_ptr + vocabulary[:, None] * D + tl.arange(0, D))
    score = tl.dot(x.to(weights.dtype), tl.trans(weights)) * scale[:, None] + tl.load(bias_ptr + vocabulary)
    if SAMPLE:
        uniform = tl.maximum(tl.rand(seed, draw[:, None] * V + vocabulary), 1e-12)
        score = score * inverse_temperature - tl.log(-tl.log(uniform))
    return tl.argmax(score, 1)


@triton.jit(do_not_specialize=["batch", "positions", "seed"])
def decode_kernel(
    prefix_ptr,
    mean_ptr,
    piece_ptr,
    norm_ptr,
    weight_ptr,
    out_weight_ptr,
    in_ptr,
    out_ptr,
    step_ptr,
    head_ptr,
    bias_ptr,
    cosine_ptr,
    sine_ptr,
    key_ptr,
    value_ptr,
    scratch_ptr,
    ids_ptr,
    batch,
    positions,
    inverse_temperature,
    seed,
    A: tl.constexpr,
    P: tl.constexpr,
    D: tl.constexpr,
    INNER: tl.constexpr,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    SPAN: tl.constexpr,
    SAMPLE: tl.constexpr,
):
    """(B, L) pieces, zero (END) from the end of each text on. positions: P - 1 + L."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < batch
    valid = inside[:, None]
    column = tl.arange(0, D)
    half = tl.arange(0, D // 4)
    mean = tl.load(mean_ptr + row[:, None] * D + column, mask=valid, other=0.0)
    norm = tl.load(norm_ptr + column)
    piece = tl.zeros((BLOCK,), tl.int32)
    alive = inside.to(tl.int32)
    position = 0
    while (position < positions) & (tl.sum(alive, 0) > 0):
        if position < P:
            x = tl.load(prefix_ptr + (row * P + position)[:, None] * D + column, mask=valid, other=0.0)
        else:
            x = tl.load(piece_ptr + piece[:, None] * D + column).to(tl.float32) + mean
            x = x * inverse_rms(x, D)[:, None] * norm
        cosine = tl.load(cosine_ptr + position * (D // 4) + half)[None, :]
        sine = tl.load(sine_ptr + position * (D // 4) + half)[None, :]
        for application in range(A):
            x += tl.load(step_ptr + application * D + column)
            start = (application * batch + row).to(tl.int64) * positions * D
            scale = inverse_rms(x, D)
            _project(
                x.to(scratch_ptr.dtype.element_ty),
                scale,
                weight_ptr,
                cosine,
                sine,
                scratch_ptr,
                key_ptr,
                value_ptr,
                row,
                start + position * D,
                valid,
                D,
                D // 4,
            )
            tl.debug_barrier()
            _attend(scratch_ptr, key_ptr, value_ptr, row, start, position, valid, D, D // 2, BLOCK, SPAN)
            tl.debug_barrier()
            x = _perceive(x, scratch_ptr, out_weight_ptr, in_ptr, out_ptr, row, valid, D, INNER, CHUNK)
            tl.debug_barrier()
        if position >= P - 1:
            written = position - (P - 1)
            draw = row * positions + position
            piece = _choose(x, head_ptr, bias_ptr, inverse_temperature, seed, draw, D, V, SAMPLE) * alive
            tl.store(ids_ptr + row * (positions - P + 1) + written, piece.to(tl.uint8), mask=inside)
            alive = alive * (piece != 0).to(tl.int32)
        position += 1
