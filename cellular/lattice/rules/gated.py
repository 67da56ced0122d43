"""A gated recurrent unit in every cell: Cho et al. 2014, with the convolution of Ballas et al. 2016."""

from torch import Tensor, nn

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
        update, reset, candidate = self.perceive(seen_BXYZC).chunk(3, -1)
        candidate = (candidate + reset.sigmoid() * self.own(seen_BXYZC)).tanh()
        next_BXYZC: Tensor = state_BXYZC + update.sigmoid() * (candidate - state_BXYZC)
        return next_BXYZC
