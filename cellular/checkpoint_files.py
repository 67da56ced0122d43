"""The files that every kind of checkpoint has: validated settings in JSON, weights in safetensors."""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from cellular.config import Settings
from cellular.errors import CellularError

Config = TypeVar("Config", bound=Settings)

CONFIG, WEIGHTS = "config.json", "model.safetensors"
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


def read_kind(path: Path, kinds: Sequence[str]) -> str:
    """Which of these entries a JSON file has: what the checkpoint beside it is.

    Raises:
        CellularError: it cannot be read, or has none of them.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CellularError(f"cannot read {path}: {error}") from error
    for kind in kinds:
        if isinstance(found, dict) and kind in found:
            return kind
    raise CellularError(f"{path} describes neither of {', '.join(kinds)}: choose another checkpoint")


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


def describe_checkpoint(folder_or_name: Path | str) -> dict[str, object]:
    """What any kind of checkpoint says of itself, and how many numbers it stores.

    Raises:
        CellularError: there is none, or it is damaged.
    """
    folder = find_checkpoint(folder_or_name)
    weights = folder / WEIGHTS
    try:
        settings = json.loads((folder / CONFIG).read_bytes())
        with safe_open(weights, "numpy") as tensors:
            numbers = sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise CellularError(f"{folder} is no checkpoint: {error}") from error
    return {
        "name": folder.name,
        "path": str(folder),
        "parameters": numbers,
        "bytes": weights.stat().st_size,
        **_flat(settings),
    }


def _flat(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings with dotted names."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
