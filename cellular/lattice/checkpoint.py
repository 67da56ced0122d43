"""A lattice in a folder.

FOLDER/
  model.safetensors   the weights, float32
  config.json         what they are: shape, the spaces of the embeddings, how they were trained; written last
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cellular import __version__
from cellular.config import Settings
from cellular.errors import CellularError
from cellular.files import write_atomically
from cellular.lattice.config import LatticeConfig
from cellular.lattice.lattice import Lattice3D

FORMAT: Final = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


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


def load_lattice(folder: Path | str) -> LatticeCheckpoint:
    """Read a folder that `save_lattice` wrote; the lattice is on the processor and set to evaluate.

    Raises:
        CellularError: it is not there, is damaged, or is another release's.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    with torch.random.fork_rng(devices=[]):  # a program's own random numbers stay as they are
        lattice = Lattice3D(config.lattice)
    weights = _read_weights(folder / WEIGHTS)
    expected = {name: value.shape for name, value in lattice.named_parameters()}
    if expected != {name: value.shape for name, value in weights.items()}:
        raise CellularError(f"{folder / WEIGHTS} is not of the shape in its {CONFIG}: restore both")
    lattice.load_state_dict(weights)
    return LatticeCheckpoint(lattice.eval(), config.teacher, config.training)


def _read_config(path: Path) -> _Config:
    try:
        return _Config.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CellularError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CellularError(
            f"{path} is not a lattice's of format {FORMAT}: {where}: {first['msg']}; "
            "use the release that wrote it, or restore it"
        ) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise CellularError(f"cannot read {path}: {error.strerror}") from error
    except SafetensorError as error:
        raise CellularError(f"{path} is damaged ({error}): take the checkpoint again") from error
