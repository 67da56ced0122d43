"""The rule of neural cellular automata: Mordvintsev et al. 2020, Growing Neural Cellular Automata."""

import torch
from torch import Tensor

from cellular.lattice.config import LatticeConfig
from cellular.lattice.rules.hidden import HiddenLayer


class NCA(HiddenLayer):
    """What a cell sees passes through one hidden layer and is added to its state.

    In training a cell skips a step now and then, so that none relies on the others keeping time. Updates are
    scaled up for it, and in evaluation each cell takes each step.
    """

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__(config)
        self.update_probability = config.update_probability

    def forward(self, state_BXYZC: Tensor, seen_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, C): the next states."""
        update_BXYZC = self.transition(seen_BXYZC)
        if self.training and self.update_probability < 1:
            update_BXYZC = update_BXYZC * self._mask(update_BXYZC)
        return state_BXYZC + update_BXYZC

    def _mask(self, update_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, 1): zero for the cells that skip, and one on average."""
        chance = torch.rand(update_BXYZC.shape[:-1], device=update_BXYZC.device)[..., None]
        return torch.lt(chance, self.update_probability).to(update_BXYZC.dtype) / self.update_probability
