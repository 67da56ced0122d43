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

CONFIG = "config.json"
_PACKAGED = Path(__file__).parent / "checkpoints"


def find_checkpoint(folder_or_name: Path | str) -> Path:
    """The folder of a checkpoint.

    Raises:
        CellularError: neither the package nor the file system has it.
    """
    for folder in (_PACKAGED / folder_or_name, Path(folder_or_name)):
        if (folder / CONFIG).is_file():
            return folder
    packaged = ", ".join(packaged_checkpoints()) or "none"
    raise CellularError(
        f"no checkpoint {folder_or_name}: give a folder that holds {CONFIG}, or a packaged one ({packaged})"
    )


def packaged_checkpoints() -> list[str]:
    """The names of those that come with the package."""
    return sorted(path.parent.name for path in _PACKAGED.glob(f"*/{CONFIG}"))


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
