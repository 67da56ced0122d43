"""Root mean square norms of rows, inside other kernels. A norm's gain is part of the weights after it."""

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-6)


@triton.jit
def inverse_rms(x, D: tl.constexpr):
    """(R,) one over the root mean square of (R, D) float32: the scale of each row."""
    return tl.rsqrt(tl.sum(x * x, 1) / D + EPSILON)


@triton.jit
def norm_backward(d_product, x, scale, D: tl.constexpr):
    """Gradient of (R, D) x by way of its norm: d_product is that of the norm times the (R, 1) scale."""
    x = x.to(tl.float32)
    return d_product - x * (tl.sum(d_product * x, 1)[:, None] * (scale * scale / D))
