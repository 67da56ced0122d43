"""The plainest rule, for comparisons: nothing of the old state stays but what the cell sees of itself."""

from torch import Tensor

from cellular.lattice.rules.hidden import HiddenLayer


class MLP(HiddenLayer):
    """What a cell sees passes through one hidden layer and is its next state."""

    def forward(self, state_BXYZC: Tensor, seen_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, C): the next states, in the dtype of the old ones."""
        return self.transition(seen_BXYZC).to(state_BXYZC.dtype)
