"""The hidden layer that rules share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cellular.lattice.config import LatticeConfig
from cellular.lattice.fused import fused_hidden, has_kernels
from cellular.lattice.perceive import (
    Perceive,
    View,
    autocast,
    gather,
    gather_backward,
    gathers,
    workspace,
)


class HiddenLayer(nn.Module):
    """What a cell sees passes through one hidden layer; by one kernel where there is one."""

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__()
        inner = config.inner * config.channels
        self.perceive = Perceive(config.channels, inner, config.view)
        self.out = nn.Linear(inner, config.channels, bias=False)

    def transition(self, seen_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, C) in the states' dtype, or autocast's."""
        inward_HV, outward_CH = self.perceive.weight, self.out.weight
        operands = autocast(seen_BXYZC, inward_HV, outward_CH)
        if has_kernels(operands[0], self.perceive.view) and not self._compiler_is_faster(len(outward_CH)):
            kernels: Tensor = fused_hidden(*operands)
            return kernels
        if self._stays_in_cache(operands[0]):
            cached: Tensor = _Cached.apply(*operands, self.perceive.view, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
            return cached
        operations: Tensor = self.out(F.gelu(self.perceive(seen_BXYZC)))
        return operations

    def _stays_in_cache(self, seen_BXYZC: Tensor) -> bool:
        if seen_BXYZC.is_cuda or torch.compiler.is_compiling():
            return False
        return gathers(seen_BXYZC, len(self.perceive.weight), self.perceive.view)

    @staticmethod
    def _compiler_is_faster(channels: int) -> bool:
        """Where cells are wide, its own kernels train faster, but take up to 4 times the memory."""
        return torch.compiler.is_compiling() and channels > 64


class _Cached(torch.autograd.Function):
    """The layer on a processor, for a few examples at a time: what lies between does not leave the cache.

    Shapes: H hidden units, V = 7 C numbers that a cell sees.
    """

    @staticmethod
    def forward(
        ctx: Any, seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor, view: View, keep: bool
    ) -> Tensor:
        result = torch.empty_like(seen_BXYZC, memory_format=torch.contiguous_format)
        copies, rows = workspace(seen_BXYZC, view)
        kept = []
        for some, target in zip(
            torch.split(seen_BXYZC, len(rows)), torch.split(result, len(rows)), strict=True
        ):
            rows_NV = gather(some, copies, rows[: len(some)]).view(-1, inward_HV.shape[1])
            inner_NH = torch.mm(rows_NV, inward_HV.t())
            active_NH = F.gelu(inner_NH)
            torch.mm(active_NH, outward_CH.t(), out=target.view(-1, len(outward_CH)))
            if keep:
                kept += [inner_NH, active_NH]
        if keep:
            ctx.save_for_backward(seen_BXYZC, inward_HV, outward_CH, *kept)
            ctx.view = view
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        seen_BXYZC, inward_HV, outward_CH, *kept = ctx.saved_tensors
        d_seen = torch.empty_like(seen_BXYZC, memory_format=torch.contiguous_format)
        wide = torch.promote_types(inward_HV.dtype, torch.float32)
        d_inward, d_outward = (torch.zeros_like(weight, dtype=wide) for weight in (inward_HV, outward_CH))
        copies, rows = workspace(seen_BXYZC, ctx.view)
        d_rows = torch.empty_like(rows)
        parts = (torch.split(whole, len(rows)) for whole in (seen_BXYZC, d_result, d_seen))
        for some, d_some, target, inner_NH, active_NH in zip(*parts, kept[::2], kept[1::2], strict=True):
            d_some_NC = d_some.reshape(-1, len(outward_CH))
            d_outward += d_some_NC.t() @ active_NH
            d_inner_NH = torch.ops.aten.gelu_backward(d_some_NC @ outward_CH, inner_NH)
            d_inward += gather_backward(d_inner_NH, some, inward_HV, copies, rows, d_rows, target)
        return d_seen, d_inward.to(inward_HV.dtype), d_outward.to(outward_CH.dtype), None, None
