"""An average of the weights over the last steps, which decodes better than the last weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

EVERY = 10  # steps between updates: a tenth of the cost, the same average
FIRST = 100  # steps that are all taken in, so that a short training has an average of its own


class WeightAverage:
    """Exponential moving average (Polyak & Juditsky 1992), with a short memory at first.

    Args:
        weights: the tensors to follow; they are copied.
        steps: that the average spans; 0: it is the weights themselves.
    """

    def __init__(self, weights: Sequence[Tensor], steps: int) -> None:
        self._steps = steps
        self._weights = list(weights)
        self.tensors = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after optimiser step number `step`, counted from 1."""
        every = EVERY if self._steps and step > FIRST else 1
        if step % every:
            return
        memory = min(self._steps, step / 10)  # so that the start is soon forgotten
        torch._foreach_lerp_(self.tensors, self._weights, min(1.0, every / max(memory, 1e-9)))
