"""A gated recurrent unit in every cell: Cho et al. 2014, with the convolution of Ballas et al. 2016."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cellular.lattice.config import LatticeConfig
from cellular.lattice.perceive import Perceive


class Gated(nn.Module):
    """A gate mixes the state with a candidate made of what the cell sees.

    The reset gate acts after the product with the cell's own state, as in cuDNN: before it, a cell would see
    the gates of its neighbours, and by them its neighbours' neighbours.
    """

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__()
        self.perceive = Perceive(config.channels, 3 * config.channels, config.view)
        self.own = nn.Linear(config.channels, config.channels, bias=False)

    def forward(self, state_BXYZC: Tensor, seen_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, C): the next states."""
        gates_BXYZ3C, own_BXYZC = self.perceive(seen_BXYZC), self.own(seen_BXYZC)
        one_dtype = gates_BXYZ3C.dtype == own_BXYZC.dtype == state_BXYZC.dtype
        if one_dtype and not state_BXYZC.is_cuda and not torch.compiler.is_compiling():
            blended_BXYZC: Tensor = _Blend.apply(gates_BXYZ3C, own_BXYZC, state_BXYZC)  # type: ignore[no-untyped-call]
            return blended_BXYZC
        return blend(gates_BXYZ3C, own_BXYZC, state_BXYZC)


def blend(gates_BXYZ3C: Tensor, own_BXYZC: Tensor, state_BXYZC: Tensor) -> Tensor:
    """What the gates, update, reset and candidate side by side, make of a state."""
    update, reset, candidate = gates_BXYZ3C.chunk(3, -1)
    candidate = (candidate + reset.sigmoid() * own_BXYZC).tanh()
    return state_BXYZC + update.sigmoid() * (candidate - state_BXYZC)


class _Blend(torch.autograd.Function):
    """`blend` on a processor, in a third of the time for small states.

    There a sigmoid of what lies in strips of some channels takes five times that of what lies together, and a
    tanh of bfloat16 twice that of float32.
    """

    @staticmethod
    def forward(ctx: Any, gates_BXYZ3C: Tensor, own_BXYZC: Tensor, state_BXYZC: Tensor) -> Tensor:
        parts_3BXYZC = torch.unflatten(gates_BXYZ3C, -1, (3, -1)).movedim(-2, 0).contiguous()
        parts_3BXYZC[:2].sigmoid_()
        update, reset, candidate = parts_3BXYZC
        candidate.addcmul_(reset, own_BXYZC)
        if candidate.dtype == torch.bfloat16:
            candidate.copy_(candidate.float().tanh_())
        else:
            candidate.tanh_()
        ctx.save_for_backward(parts_3BXYZC, own_BXYZC, state_BXYZC)
        return torch.lerp(state_BXYZC, candidate, update)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_next_BXYZC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts_3BXYZC, own_BXYZC, state_BXYZC = ctx.saved_tensors
        update, reset, candidate = parts_3BXYZC
        d_parts_3BXYZC = torch.empty_like(parts_3BXYZC)
        d_update, d_reset, d_candidate = d_parts_3BXYZC
        d_blended = d_next_BXYZC * update
        torch.ops.aten.tanh_backward.grad_input(d_blended, candidate, grad_input=d_candidate)
        torch.sub(candidate, state_BXYZC, out=d_update).mul_(d_next_BXYZC)
        torch.mul(d_candidate, own_BXYZC, out=d_reset)
        of_gates = d_parts_3BXYZC[:2]
        torch.ops.aten.sigmoid_backward.grad_input(of_gates, parts_3BXYZC[:2], grad_input=of_gates)
        d_own_BXYZC = d_candidate * reset
        return d_parts_3BXYZC.movedim(0, -2).flatten(-2), d_own_BXYZC, d_next_BXYZC - d_blended
