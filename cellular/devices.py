"""What a device computes fastest in."""

from functools import cache

import torch


@cache
def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where a device has instructions for it, as GPUs and processors with AMX; else float32."""
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = has_amx() or torch.cpu.get_capabilities().get("avx512_bf16")
    return torch.bfloat16 if native else torch.float32


@cache
def has_amx() -> bool:
    """Whether the processor has units for small matrices of bfloat16."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
