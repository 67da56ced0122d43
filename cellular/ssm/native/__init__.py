"""The scans in C, for processors: the recurrence itself, whose states never leave the cache.

A state's lanes are channels, so that a position costs three instructions for as many numbers of a state as
a register holds, and nothing but x, Δ, B, C and y passes through memory. Backward the states of 16 positions
are computed again from one that forward kept. Products of matrices, as on a GPU, would take more arithmetic.

In float32 and float64; the threads of torch share the texts. Operators of their own, so that a compiler
takes them as they are.
"""

from cellular.ssm.native.channels import native_channels
from cellular.ssm.native.heads import native_heads
from cellular.ssm.native.library import has_native

__all__ = ["has_native", "native_channels", "native_heads"]
