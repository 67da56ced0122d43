"""A 3D lattice of cells between two embeddings."""

from cellular.lattice.checkpoint import LatticeCheckpoint, load_lattice, save_lattice
from cellular.lattice.config import LatticeConfig
from cellular.lattice.lattice import Lattice3D, count_parameters, describe_parameters, record_states
from cellular.lattice.orders import ORDERS
from cellular.lattice.rules import RULES

__all__ = [
    "ORDERS",
    "RULES",
    "Lattice3D",
    "LatticeCheckpoint",
    "LatticeConfig",
    "count_parameters",
    "describe_parameters",
    "load_lattice",
    "record_states",
    "save_lattice",
]
