"""The plainest rule, for comparisons: nothing of the old state stays but what the cell sees of itself."""

import torch.nn.functional as F
from torch import Tensor, nn

from cellular.lattice.config import LatticeConfig
from cellular.lattice.perceive import Perceive


class MLP(nn.Module):
    """What a cell sees passes through one hidden layer and is its next state."""

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__()
        inner = config.inner * config.channels
        self.perceive = Perceive(config.channels, inner, config.view)
        self.out = nn.Linear(inner, config.channels, bias=False)

    def forward(self, state_BXYZC: Tensor, seen_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, C): the next states, in the dtype of the old ones."""
        next_BXYZC: Tensor = self.out(F.gelu(self.perceive(seen_BXYZC)))
        return next_BXYZC.to(state_BXYZC.dtype)
