"""A damaged folder is one clear error."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cellular.errors import CellularError
from cellular.lattice import Lattice3D, LatticeCheckpoint, load_lattice, save_lattice


@pytest.fixture
def folder(tmp_path: Path, make_lattice: Callable[..., Lattice3D]) -> Path:
    save_lattice(tmp_path, LatticeCheckpoint(make_lattice(), "a-space"))
    return tmp_path


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CellularError, match=r"no checkpoint .*none"):
        load_lattice(tmp_path / "none")


def test_damaged_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CellularError, match=r"model\.safetensors is damaged"):
        load_lattice(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CellularError, match=r"cannot read .*model\.safetensors"):
        load_lattice(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"teacher": 5}, "teacher: Input should be a valid string"),
        ({"lattice": {"rule": "life"}}, "no rule life"),
    ],
)
def test_a_config_of_another_kind_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CellularError, match=message):
        load_lattice(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["lattice"]["channels"] = 8
    path.write_text(json.dumps(config))
    with pytest.raises(CellularError, match="not of the shape"):
        load_lattice(folder)
