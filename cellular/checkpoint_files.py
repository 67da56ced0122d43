"""The files that every kind of checkpoint has: validated settings in JSON, weights in safetensors.

FOLDER/
  model.safetensors   the weights
  config.json         what they are, and how they were made; written last
  README.md           the model card, if there is one
"""

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, ValidationError, model_serializer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from cellular import __version__
from cellular.config import Settings
from cellular.errors import CellularError
from cellular.files import sha256_file, write_atomically

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_PACKAGED = Path(__file__).parent / "checkpoints"


class CheckpointConfig(Settings):
    """What config.json holds, whatever the checkpoint; a kind adds what it is made of."""

    kind: ClassVar[str]  # for the error where it is another's, such as "a lattice's"

    format: Literal[1] = 1
    training: dict[str, JsonValue] = Field({}, description="facts for people: data, command, commit, figures")
    cellular: str = Field(__version__, description="release that wrote it")

    @model_serializer(mode="wrap")
    def _origin_last(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        return fields | {name: fields.pop(name) for name in ("training", "cellular")}


Config = TypeVar("Config", bound=CheckpointConfig)
Network = TypeVar("Network", bound=nn.Module)


def write_checkpoint(
    folder: Path | str,
    config: CheckpointConfig,
    weights: Mapping[str, Tensor],
    card: str | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a folder, made if need be; one that is there is replaced file by file.

    Args:
        folder: its name is the checkpoint's.
        config: what config.json says.
        weights: as they are stored.
        card: text of the model card; None: none is written.
        files: others, by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cards = {CARD: card.encode()} if card else {}
    contents = {WEIGHTS: save(dict(weights)), **(files or {}), **cards}
    contents[CONFIG] = f"{config.model_dump_json(indent=2)}\n".encode()
    for name, content in contents.items():
        write_atomically(folder / name, content)


def as_stored(network: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The parameters of a network as they go into a file."""
    return {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.named_parameters()}


def plain_card(name: str, about: str, facts: Mapping[str, object]) -> str:
    """A model card of a sentence and the facts."""
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return f"# {name}\n\n{about}\n\n{lines}\n"


def read_checkpoint(folder_or_name: Path | str, config: type[Config]) -> tuple[Path, Config]:
    """The folder of a checkpoint that comes with the package, by name, or of any other; what it says it is.

    Raises:
        CellularError: there is none, it is damaged, or another kind's or release's.
    """
    folder = find_checkpoint(folder_or_name)
    return folder, _read_config(folder / CONFIG, config)


def restore(folder: Path, make: Callable[[], Network]) -> Network:
    """A network with the weights of a checkpoint, in the precision that it was made in, set to evaluate.

    Raises:
        CellularError: the weights are damaged, or another network's.
    """
    network, weights = make_untrained(make), read_tensors(folder / WEIGHTS)
    expected = {name: value.shape for name, value in network.named_parameters()}
    if expected != {name: value.shape for name, value in weights.items()}:
        raise CellularError(f"{folder / WEIGHTS} is not of the shape in its {CONFIG}: restore both")
    network.load_state_dict(weights)
    return network.eval()


def make_untrained(make: Callable[[], Network]) -> Network:
    """A new network; a program's own random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        return make()


def weights_fingerprint(folder: Path) -> str:
    """Tells the weights of a checkpoint from others."""
    return sha256_file(folder / WEIGHTS)[:16]


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


def packaged_checkpoints(beginning: str = "") -> list[str]:
    """The names of those that come with the package, or of those that begin so."""
    return sorted(path.parent.name for path in _PACKAGED.glob(f"{beginning}*/{CONFIG}"))


def _read_config(path: Path, config: type[Config]) -> Config:
    try:
        return config.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CellularError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        what = f"{config.kind} of format {config.model_fields['format'].default}"
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
