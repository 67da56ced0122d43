"""Cell rules: what a cell becomes, given its own state and what it sees.

A rule is a module made from the settings and called with the states and their normalised copies,
(B, X, Y, Z, C) each; it answers with the next states. It looks at neighbours through one `Perceive`, so that
nothing travels further than a neighbour in a step, and leaves cells at rest among cells at rest as they are.
"""

from collections.abc import Callable
from typing import Final

from torch import nn

from cellular.lattice.config import LatticeConfig
from cellular.lattice.rules.gated import Gated
from cellular.lattice.rules.mlp import MLP
from cellular.lattice.rules.nca import NCA

RULES: Final[dict[str, Callable[[LatticeConfig], nn.Module]]] = {"nca": NCA, "gated": Gated, "mlp": MLP}
