"""Most weights zero: pruning while a model is trained, and a file that holds only what is left.

Zhu & Gupta 2017, To prune, or not to prune: weights of the least magnitude are set to zero, more of them by
and by, while the others learn to do without. A pruned weight may come back as long as the share still grows:
each time the largest are chosen afresh, from what the optimiser made of all of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_EVERY = 8  # optimiser steps between two choices; between them the last one holds


class MagnitudePruner:
    """Keeps the smallest weights of each matrix at zero while a model is trained.

    Args:
        weights: name → matrix, changed in place; the same share of each is pruned.
        final_sparsity: share of zeros in the end, 0 to 1.
        start: share of the training that is done when pruning starts.
        end: when the final share is reached; from then on the same weights stay zero.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], final_sparsity: float, start: float = 0.0, end: float = 0.6
    ) -> None:
        self._weights = weights
        self._final, self._start, self._end = final_sparsity, start, end
        self._masks: dict[str, Tensor] = {}
        self._sparsity = 0.0
        self._calls = 0

    @torch.no_grad()
    def step(self, done: float) -> None:
        """Prune after an optimiser step; `done` is the share of the training, 0 to 1."""
        target = cubic_sparsity(done, self._final, self._start, self._end)
        if target > self._sparsity and (self._calls % _EVERY == 0 or target == self._final):
            self._masks = {name: largest(weight, target) for name, weight in self._weights.items()}
            self._sparsity = target
        self._calls += 1
        self.apply(self._weights)

    @torch.no_grad()
    def apply(self, weights: Mapping[str, Tensor]) -> None:
        """Set to zero what is pruned now in weights of the same names, for example their average."""
        for name, mask in self._masks.items():
            weights[name].mul_(mask)


def cubic_sparsity(done: float, final: float, start: float, end: float) -> float:
    """Share of zeros after `done` of the training: fast at first, slower as fewer weights are left."""
    if done >= end:
        return final
    return final * (1 - (1 - max(done - start, 0.0) / (end - start)) ** 3)


def largest(weight: Tensor, sparsity: float) -> Tensor:
    """Boolean mask of the `1 - sparsity` of the weights that are largest."""
    count = round(sparsity * weight.numel())
    sizes = weight.abs().flatten()
    mask = torch.ones_like(sizes, dtype=torch.bool)
    mask[sizes.topk(count, largest=False, sorted=False).indices] = False
    return mask.view_as(weight)


def sparsity(weights: Mapping[str, Tensor]) -> float:
    """Share of zeros among all weights given."""
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return zeros / sum(weight.numel() for weight in weights.values())


def pack_mask(mask: Tensor) -> Tensor:
    """Eight booleans a byte, the first lowest: (..., N) bool, N a multiple of 8, as (..., N / 8) uint8."""
    bits = mask.view(*mask.shape[:-1], -1, 8).to(torch.uint8)
    places = torch.arange(8, dtype=torch.uint8)
    return (bits << places).sum(-1, dtype=torch.uint8)


def unpack_mask(packed: Tensor) -> Tensor:
    """The inverse of `pack_mask`."""
    places = torch.arange(8, dtype=torch.uint8)
    return ((packed.unsqueeze(-1) >> places) & 1).bool().flatten(-2)
