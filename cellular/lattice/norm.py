"""What makes the states of cells comparable before they are read."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.lattice.config import LatticeConfig

_EPSILON = 1e-3  # a cell at rest has a gradient 1 / sqrt(this) larger, once a step on the way back


class CellNorm(nn.Module):
    """Layer norm of every cell's channels, times gains of its own: all that tells cells their place.

    There is no bias, so that a cell at rest stays at zero until something reaches it.
    """

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__()
        self.gain_XYZC = nn.Parameter(torch.ones(*config.size, config.channels))

    def forward(self, state_BXYZC: Tensor, first: int = 0) -> Tensor:
        """(B, X, Y, Z, C), of the same dtype; of some planes alone, `first` is the first one's place."""
        normalised = normalise(state_BXYZC)
        gain_XYZC = self.gain_XYZC[first : first + state_BXYZC.shape[1]]
        return normalised * gain_XYZC.to(normalised.dtype)


def normalise(state_BXYZC: Tensor) -> Tensor:
    """Layer norm of every cell's channels; zeros stay zeros."""
    return F.layer_norm(state_BXYZC, state_BXYZC.shape[-1:], eps=_EPSILON)
