"""A lattice in a folder.

FOLDER/
  model.safetensors   the weights, float32
  config.json         what they are: shape, the spaces of the embeddings, how they were trained; written last
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import Field, JsonValue
from safetensors.torch import save

from cellular import __version__
from cellular.checkpoint_files import CONFIG, find_checkpoint, read_config, read_tensors
from cellular.config import Settings
from cellular.errors import CellularError
from cellular.files import write_atomically
from cellular.lattice.config import LatticeConfig
from cellular.lattice.lattice import Lattice3D

FORMAT: Final = 1
WEIGHTS = "model.safetensors"


class _Config(Settings):
    """What config.json holds."""

    format: Literal[1] = FORMAT
    lattice: LatticeConfig
    teacher: str = Field(description="fingerprint of the space that is read and written")
    training: dict[str, JsonValue] = Field({}, description="facts for people: data, command, commit, figures")
    cellular: str = Field(__version__, description="release that wrote it")


@dataclass(frozen=True)
class LatticeCheckpoint:
    """A lattice and the embeddings it was made for."""

    lattice: Lattice3D
    teacher: str
    training: dict[str, JsonValue] = field(default_factory=dict)


def save_lattice(folder: Path | str, checkpoint: LatticeCheckpoint) -> None:
    """Write a folder, made if need be; one that is there is replaced file by file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lattice = checkpoint.lattice
    config = _Config(lattice=lattice.config, teacher=checkpoint.teacher, training=checkpoint.training)
    weights = {name: value.detach().float().cpu().contiguous() for name, value in lattice.named_parameters()}
    write_atomically(folder / WEIGHTS, save(weights))
    write_atomically(folder / CONFIG, f"{config.model_dump_json(indent=2)}\n".encode())


def load_lattice(folder_or_name: Path | str) -> LatticeCheckpoint:
    """Read a lattice that comes with the package, by name, or one in a folder that `save_lattice` wrote.

    It is on the processor and set to evaluate.

    Raises:
        CellularError: there is none, it is damaged, or another release's.
    """
    folder = find_checkpoint(folder_or_name)
    config = read_config(folder / CONFIG, _Config, f"a lattice's of format {FORMAT}")
    with torch.random.fork_rng(devices=[]):  # a program's own random numbers stay as they are
        lattice = Lattice3D(config.lattice)
    weights = read_tensors(folder / WEIGHTS)
    expected = {name: value.shape for name, value in lattice.named_parameters()}
    if expected != {name: value.shape for name, value in weights.items()}:
        raise CellularError(f"{folder / WEIGHTS} is not of the shape in its {CONFIG}: restore both")
    lattice.load_state_dict(weights)
    return LatticeCheckpoint(lattice.eval(), config.teacher, config.training)
