"""Checkpoints that make embeddings of embeddings: a lattice, or the MLP that it is compared with."""

from pathlib import Path

from cellular.checkpoint_files import CONFIG, read_kind
from cellular.lattice import LatticeCheckpoint, load_lattice
from cellular.mlp import MLPCheckpoint, load_mlp


def load_lattice_or_mlp(folder: Path) -> LatticeCheckpoint | MLPCheckpoint:
    """The one of a folder, of either kind.

    Raises:
        CellularError: there is none, it is damaged, or of another kind or release.
    """
    if read_kind(folder / CONFIG, ("lattice", "mlp")) == "mlp":
        return load_mlp(folder)
    return load_lattice(folder)
