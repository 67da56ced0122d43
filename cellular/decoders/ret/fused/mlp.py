"""Kernels of the rest of the layer: attention's output projection, the MLP, and the way back through a norm.

Tensors come as TMA descriptors. `scale` is one over the root mean square of a row: the norm's gain is part of
the weights after it, so that a row's norm is one number, which is applied after the product.
"""

import triton
import triton.language as tl

_EPSILON = tl.constexpr(1e-6)


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=["scale_ptr", "next_scale_ptr"])
def perceive_kernel(
    x, y, out_weight, in_weight, mlp_out_weight, step_ptr, x1, x2, squared, scale_ptr, next_scale_ptr, rows,
    D: tl.constexpr, INNER: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """x1 = x + y Wo^T; squared = relu(norm(x1) Win^T)^2; x2 = x1 + squared Wout^T + the next step."""
    start = tl.program_id(0) * BLOCK
    row = start + tl.arange(0, BLOCK)
    inside = row < rows
    total = tl.zeros((BLOCK, D), tl.float32)
    for part in range(0, D, CHUNK):
        total = tl.dot(y.load([start, part]), out_weight.load([0, part]).T, total)
    total += x.load([start, 0]).to(tl.float32)
    scale = tl.rsqrt(tl.sum(total * total, 1) / D + _EPSILON)
    tl.store(scale_ptr + row, scale, mask=inside)
    narrow = total.to(x1.dtype)
    x1.store([start, 0], narrow)
    for part in range(0, INNER, CHUNK):
        inner = tl.maximum(tl.dot(narrow, in_weight.load([part, 0]).T) * scale[:, None], 0.0)
        power = (inner * inner).to(squared.dtype)
        squared.store([start, part], power)
        total = tl.dot(power, mlp_out_weight.load([0, part]).T, total)
    total += tl.load(step_ptr + tl.arange(0, D))[None, :]
    tl.store(next_scale_ptr + row, tl.rsqrt(tl.sum(total * total, 1) / D + _EPSILON), mask=inside)
    x2.store([start, 0], total.to(x2.dtype))


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=["scale_ptr"])
def inner_backward_kernel(
    d_x2, mlp_out_weight, scale_ptr, squared, d_inner, rows,
    D: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradient of the product with Win, times the row's scale; the activation is the root of `squared`."""
    column = tl.program_id(0) * WIDTH
    start = tl.program_id(1) * BLOCK
    row = start + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    for part in range(0, D, CHUNK):
        total = tl.dot(d_x2.load([start, part]), mlp_out_weight.load([part, column]), total)
    scale = tl.load(scale_ptr + row, mask=row < rows, other=0.0)[:, None]
    total *= tl.sqrt(squared.load([start, column]).to(tl.float32)) * (2.0 * scale)
    d_inner.store([start, column], total.to(d_inner.dtype))


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=["scale_ptr"])
def norm_backward_kernel(
    d_out, x, scale_ptr, residual, weight, dx, rows,
    K: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """dx = residual + the gradient of norm(x) W^T, given that of the product times the row's scale."""
    start = tl.program_id(0) * BLOCK
    row = start + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, D), tl.float32)
    for part in range(0, K, CHUNK):
        total = tl.dot(d_out.load([start, part]), weight.load([part, 0]), total)
    scale = tl.load(scale_ptr + row, mask=row < rows, other=0.0)[:, None]
    x_hat = x.load([start, 0]).to(tl.float32) * scale
    total -= x_hat * (tl.sum(total * x_hat, 1) / D)[:, None]
    total += residual.load([start, 0]).to(tl.float32)
    dx.store([start, 0], total.to(dx.dtype))
