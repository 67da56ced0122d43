"""The files that every kind of checkpoint has: validated settings in JSON, weights in safetensors."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from cellular.config import Settings
from cellular.errors import CellularError

Config = TypeVar("Config", bound=Settings)


def read_config(path: Path, config: type[Config], what: str) -> Config:
    """The settings in a file.

    Args:
        path: of the JSON file.
        config: what it must hold.
        what: it is, for the error, such as "a checkpoint's of format 1".

    Raises:
        CellularError: it cannot be read, or holds something else.
    """
    try:
        return config.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CellularError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CellularError(
            f"{path} is not {what}: {where}: {first['msg']}; use the release that wrote it, or restore it"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name.

    Raises:
        CellularError: it cannot be read, or is damaged.
    """
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise CellularError(f"cannot read {path}: {error.strerror}") from error
    except SafetensorError as error:
        raise CellularError(f"{path} is damaged ({error}): take the checkpoint again") from error
