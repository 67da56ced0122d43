"""What happens to embeddings on their way: noise, lost dimensions, few bits. All give unit length again.

Shapes: B embeddings, E their dimension.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.objectives import add_noise
from cellular.training.lattice_config import DamageConfig


def drop_dimensions(embeddings_BE: Tensor, share: float) -> Tensor:
    """Embeddings that have lost a random share of their numbers, up to `share`, to zero."""
    return lose_dimensions(
        embeddings_BE, share * torch.rand(len(embeddings_BE), 1, device=embeddings_BE.device)
    )


def lose_dimensions(embeddings_BE: Tensor, shares_B1: Tensor) -> Tensor:
    """Embeddings of which these shares of the numbers are zero, whichever."""
    lost_BE = torch.rand(embeddings_BE.shape, device=embeddings_BE.device) < shares_B1
    return F.normalize(embeddings_BE.masked_fill(lost_BE, 0.0), dim=1)


def quantise(embeddings_BE: Tensor, bits: int) -> Tensor:
    """Embeddings as `bits` bits a number keep them: whole multiples of a step, zero in the middle.

    The step of a row is its largest number over 2^(bits-1) - 1.
    """
    levels = 2 ** (bits - 1) - 1
    steps_B1 = embeddings_BE.abs().amax(1, keepdim=True).clamp(min=1e-12) / levels
    return F.normalize((embeddings_BE / steps_B1).round() * steps_B1, dim=1)


class Damage:
    """Damages each row in one way, chosen at random, or leaves it as it is.

    Args:
        config: which ways there are, and how bad they get.
    """

    def __init__(self, config: DamageConfig) -> None:
        self._clean = config.clean
        self._ways: list[Callable[[Tensor], Tensor]] = [partial(quantise, bits=bits) for bits in config.bits]
        if config.drop:
            self._ways.append(partial(drop_dimensions, share=config.drop))
        if config.noise:
            self._ways.append(partial(add_noise, length=config.noise))

    def __call__(self, embeddings_BE: Tensor) -> Tensor:
        """(B, E) of the same, unit length."""
        if not self._ways:
            return embeddings_BE
        device = embeddings_BE.device
        chosen_B = torch.randint(len(self._ways), (len(embeddings_BE),), device=device)
        clean_B = torch.rand(len(embeddings_BE), device=device) < self._clean
        damaged_BE = embeddings_BE
        for number, way in enumerate(self._ways):
            mine_B1 = ((chosen_B == number) & ~clean_B)[:, None]
            damaged_BE = torch.where(mine_B1, way(embeddings_BE), damaged_BE)
        return damaged_BE
