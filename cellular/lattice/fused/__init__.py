"""A rule's hidden layer by Triton kernels, `out(gelu(perceive(seen)))` with 6 neighbours and zeros beyond.

    y_BXYZC = fused_hidden(seen_BXYZC, inward_HV, outward_CH)

A program gathers what some cells see straight into its products: going forward, neither the 7 times wider
rows nor the hidden layer are ever in memory. Going back the hidden layer is computed again, and is in memory
once, with its gradient, for the weights'.
Operands of products are of the states' dtype, sums float32.

An operator of its own, so that a compiler takes it as it is. Nothing waits for the device: it can go into a
CUDA graph. Triton is imported at its first call alone.
"""

from cellular.lattice.fused.hidden import fused_hidden, has_kernels

__all__ = ["fused_hidden", "has_kernels"]
