"""What a device computes fastest in."""

import torch


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where a device has instructions for it, as GPUs and processors with AMX; else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    return torch.bfloat16 if native else torch.float32
