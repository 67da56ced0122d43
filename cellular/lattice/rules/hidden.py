"""The hidden layer that rules share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.lattice.config import LatticeConfig
from cellular.lattice.fused import fused_hidden, has_kernels
from cellular.lattice.perceive import Perceive, autocast


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
        operations: Tensor = self.out(F.gelu(self.perceive(seen_BXYZC)))
        return operations

    @staticmethod
    def _compiler_is_faster(channels: int) -> bool:
        """Where cells are wide, its own kernels train faster, but take up to 4 times the memory."""
        return torch.compiler.is_compiling() and channels > 64
