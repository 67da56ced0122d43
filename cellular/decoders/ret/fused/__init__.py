"""Triton kernels of the layer, for NVIDIA GPUs. Nothing else imports Triton."""
