"""A lattice in a folder.

FOLDER/
  model.safetensors   the weights, float32
  config.json         what they are: shape, the spaces of the embeddings, how they were trained; written last
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from pydantic import Field, JsonValue

from cellular.checkpoint_files import CheckpointConfig, as_stored, read_checkpoint, restore, write_checkpoint
from cellular.errors import CellularError
from cellular.lattice.config import LatticeConfig
from cellular.lattice.lattice import Lattice3D


class _Config(CheckpointConfig):
    kind = "a lattice's"

    lattice: LatticeConfig
    teacher: str = Field(description="fingerprint of the space that is read and written")


@dataclass(frozen=True)
class LatticeCheckpoint:
    """A lattice and the embeddings it was made for."""

    lattice: Lattice3D
    teacher: str
    training: dict[str, JsonValue] = field(default_factory=dict)

    def check_teacher(self, fingerprint: str) -> None:
        """Refuse embeddings of another space.

        Raises:
            CellularError: the fingerprint differs from the lattice's; names both.
        """
        if fingerprint != self.teacher:
            raise CellularError(
                f"the lattice reads embeddings of {self.teacher}, not of {fingerprint}: choose another one"
            )


def save_lattice(folder: Path | str, checkpoint: LatticeCheckpoint) -> None:
    """Write a folder, made if need be; one that is there is replaced file by file."""
    lattice, teacher, training = checkpoint.lattice, checkpoint.teacher, checkpoint.training
    config = _Config(lattice=lattice.config, teacher=teacher, training=training)
    write_checkpoint(folder, config, as_stored(lattice, torch.float32))


def load_lattice(folder_or_name: Path | str) -> LatticeCheckpoint:
    """Read a lattice that comes with the package, by name, or one in a folder that `save_lattice` wrote.

    It is on the processor and set to evaluate.

    Raises:
        CellularError: there is none, it is damaged, or another release's.
    """
    folder, config = read_checkpoint(folder_or_name, _Config)
    lattice = restore(folder, partial(Lattice3D, config.lattice))
    return LatticeCheckpoint(lattice, config.teacher, config.training)
