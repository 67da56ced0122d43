"""`ssd_scan`, and all between a `MambaBlock`'s products, by Triton kernels.

    y_BLHP, state_BHPN = fused_scan(x_BLHP, delta_BLH, a_H, b_BLN, c_BLN, state_BHPN)
    y_BLHP, state_BHPN = fused_mix(mixed_BLG, taps_KG, bias_G, delta_BLH, a_H, skip_H, width)

The scan is one program a text and head, whose state never leaves its registers. The matrices of a chunk (see
`duality`) live there too: forward reads x, Δ, B, C and writes y, and the state before each chunk for the way
back; backward computes all else again. Operands of products are of x's dtype and sums float32; products of
float32 are of three TF32 ones, so that they stay as exact. A program is one warp, and a chunk 32 positions:
compiled for Hopper, no other size takes as few instructions a position (64 and four warps: 2.4 times as many
forward, twice as many back), most of which share out what is there.

Operators of their own, so that a compiler takes them as they are. Nothing waits for the device: they can go
into a CUDA graph. Triton is imported at their first call alone.
"""

from cellular.ssm.fused.mixer import fused_mix, mixes
from cellular.ssm.fused.scan import fused_scan, has_kernels

__all__ = ["fused_mix", "fused_scan", "has_kernels", "mixes"]
