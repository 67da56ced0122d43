"""Kernels of attention's output projection and the MLP, both ways, and back through the first projection.

Matrices come as TMA descriptors. `scale` is one over the root mean square of a row: a norm's gain is part
of the weights after it, so that a row's norm is one number, which is applied after the product.
"""

import triton
import triton.language as tl

from cellular.decoders.ret.fused.norm import inverse_rms, norm_backward


@triton.jit(do_not_specialize_on_alignment=["scale_ptr", "next_scale_ptr"])
def perceive_kernel(
    x, y, out_weight, in_weight, mlp_out_weight, step_ptr, x1, x2, squared, scale_ptr, next_scale_ptr,
    D: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """x1 = x + y Wo^T; squared = relu(norm(x1) Win^T)^2; x2 = x1 + squared Wout^T + the next step."""
    start = tl.program_id(0) * BLOCK
    row = start + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, D), tl.float32)
    for part in range(0, D, CHUNK):
        total = tl.dot(y.load([start, part]), out_weight.load([0, part]).T, total)
    total += x.load([start, 0]).to(tl.float32)
    scale = inverse_rms(total, D)
    tl.store(scale_ptr + row, scale)
    narrow = total.to(x1.dtype)
    x1.store([start, 0], narrow)
    for part in range(0, INNER, CHUNK):
        inner = tl.maximum(tl.dot(narrow, in_weight.load([part, 0]).T) * scale[:, None], 0.0)
        power = (inner * inner).to(squared.dtype)
        squared.store([start, part], power)
        total = tl.dot(power, mlp_out_weight.load([0, part]).T, total)
    total += tl.load(step_ptr + tl.arange(0, D))[None, :]
    tl.store(next_scale_ptr + row, inverse_rms(total, D))
    x2.store([start, 0], total.to(x2.dtype))


@triton.jit(do_not_specialize_on_alignment=["scale_ptr"])
def perceive_backward_kernel(
    d_x2, mlp_out_weight, in_weight, x1, scale_ptr, squared, d_inner, d_x1,
    D: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """From the gradient of x2 to those of the product with Win, times the row's scale, and of x1.

    The activation is the root of `squared`. The gradient of x2 is multiplied by the scale before the
    product, so that its tile goes from registers into it and shared memory holds two programs, and read
    again at the end.
    """
    start = tl.program_id(0) * BLOCK
    scale = tl.load(scale_ptr + start + tl.arange(0, BLOCK))[:, None]
    d_out = (d_x2.load([start, 0]).to(tl.float32) * (2.0 * scale)).to(d_x1.dtype)
    total = tl.zeros((BLOCK, D), tl.float32)
    for part in range(0, INNER, CHUNK):
        inner = tl.dot(d_out, mlp_out_weight.load([0, part]))
        inner *= tl.sqrt(squared.load([start, part]).to(tl.float32))
        narrow = inner.to(d_inner.dtype)
        d_inner.store([start, part], narrow)
        total = tl.dot(narrow, in_weight.load([part, 0]), total)
    total = norm_backward(total, x1.load([start, 0]), scale, D)
    total += d_x2.load([start, 0]).to(tl.float32)
    d_x1.store([start, 0], total.to(d_x1.dtype))


@triton.jit(do_not_specialize_on_alignment=["scale_ptr"])
def project_backward_kernel(
    d_qkv, weight, x, scale_ptr, product_ptr, residual, d_x, d_step_ptr,
    D: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """WIDTH columns of dx, and their sum over the rows: the gradient of norm(x) W^T, and of what passed by.

    A norm takes a row's product with the gradient out of it. A program of few columns cannot sum that up,
    but it equals the product of the projection's output with its own gradient.
    """
    column = tl.program_id(0) * WIDTH
    start = tl.program_id(1) * BLOCK
    row = start + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    for part in range(0, 3 * D, CHUNK):
        total = tl.dot(d_qkv.load([start, part]), weight.load([part, column]), total)
    product = tl.load(product_ptr + row * HEADS)
    for head in tl.static_range(1, HEADS):
        product += tl.load(product_ptr + row * HEADS + head)
    scale = tl.load(scale_ptr + row)
    total -= x.load([start, column]).to(tl.float32) * (product * scale * scale / D)[:, None]
    total += residual.load([start, column]).to(tl.float32)
    d_x.store([start, column], total.to(d_x.dtype))
    tl.store(d_step_ptr + tl.program_id(1) * D + column + tl.arange(0, WIDTH), tl.sum(total, 0))
