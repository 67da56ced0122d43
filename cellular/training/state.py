"""What an interrupted training goes on from: tensors in safetensors, facts in JSON, and no pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cellular.errors import CellularError

GROUPS = ("weights", "average", "optimizer")
_FACTS = "state.json"


def save_state(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write each group of tensors as `GROUP.safetensors` and the facts as `state.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for group in GROUPS:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors[group].items()}
        save_file(contiguous, folder / f"{group}.safetensors")
    (folder / _FACTS).write_text(json.dumps(facts, indent=1), "utf-8")


def load_state(folder: Path, device: torch.device) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors, on a device, and the facts.

    Raises:
        CellularError: the folder holds no complete checkpoint.
    """
    names = [*(f"{group}.safetensors" for group in GROUPS), _FACTS]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CellularError(f"{folder} is no checkpoint of a training: {missing[0]} is missing")
    tensors = {group: load_file(folder / f"{group}.safetensors", device=str(device)) for group in GROUPS}
    return tensors, json.loads((folder / _FACTS).read_text("utf-8"))
