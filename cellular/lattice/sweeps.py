"""A selective state space carries information along a path through all cells, both ways, in one step."""

from typing import Any

import torch
from torch import Tensor, nn

from cellular.lattice.config import LatticeConfig
from cellular.lattice.norm import normalise
from cellular.lattice.orders import ORDERS
from cellular.ssm.block import MambaBlock


class Sweep(nn.Module):
    """Mamba along one order and against it: Gu & Dao 2023, both ways as in Zhu et al. 2024, Vision Mamba.

    Mamba's output is gated by its input: a cell at rest would take nothing from the path. So every cell adds
    a learned vector of its place to what the sweep reads.

    Args:
        config: settings of the lattice.
        order: a name in ORDERS.
    """

    order_L: Tensor
    inverse_L: Tensor

    def __init__(self, config: LatticeConfig, order: str) -> None:
        super().__init__()
        order_L = torch.from_numpy(ORDERS[order](config.size))
        self.register_buffer("order_L", order_L, persistent=False)
        self.register_buffer("inverse_L", order_L.argsort(), persistent=False)
        self.place_XYZC = nn.Parameter(0.1 * torch.randn(*config.size, config.channels))
        self.ahead = MambaBlock(config.channels)
        self.back = MambaBlock(config.channels)

    def forward(self, state_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, C): what the sweep brought to each cell is added to its state."""
        placed_BXYZC = normalise(state_BXYZC) + self.place_XYZC
        path_BLC = _reorder(placed_BXYZC.flatten(1, 3), self.order_L, self.inverse_L)
        brought_BLC: Tensor = self.ahead(path_BLC) + self.back(path_BLC.flip(1)).flip(1)
        return state_BXYZC + _reorder(brought_BLC, self.inverse_L, self.order_L).view(state_BXYZC.shape)


def _reorder(cells_BLC: Tensor, order_L: Tensor, inverse_L: Tensor) -> Tensor:
    reordered_BLC: Tensor = _Reorder.apply(cells_BLC, order_L, inverse_L)  # type: ignore[no-untyped-call]
    return reordered_BLC


class _Reorder(torch.autograd.Function):
    """`index_select` by a permutation: its gradient is another, where autograd would add up row by row."""

    @staticmethod
    def forward(ctx: Any, cells_BLC: Tensor, order_L: Tensor, inverse_L: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_L)
        return cells_BLC.index_select(1, order_L)

    @staticmethod
    def backward(ctx: Any, gradient_BLC: Tensor) -> tuple[Tensor, None, None]:
        (inverse_L,) = ctx.saved_tensors
        return gradient_BLC.index_select(1, inverse_L), None, None
