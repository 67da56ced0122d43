"""Small lattices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.lattice import Lattice3D, LatticeConfig

SMALL: dict[str, Any] = {
    "embedding_dimension": 24,
    "size": (6, 4, 4),
    "channels": 16,
    "face_channels": 4,
    "steps": 5,
    "sweeps": (),
}


@pytest.fixture
def make_lattice() -> Callable[..., Lattice3D]:
    """A lattice in evaluation, the same for the same settings."""

    def make(**settings: Any) -> Lattice3D:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return Lattice3D(LatticeConfig(**{**SMALL, **settings})).eval()

    return make


@pytest.fixture
def embeddings() -> Tensor:
    return F.normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(2)))
