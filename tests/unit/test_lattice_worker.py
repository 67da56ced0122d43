"""The lattice as a worker: what it is called with is what the core computes, and it says what it holds."""

from pathlib import Path

import numpy as np
import pytest

from actors.lattice import Lattice
from cellular.errors import CellularError
from cellular.lattice import Lattice3D, LatticeCheckpoint, LatticeConfig, save_lattice
from cellular.lattice.inference import process
from cellular.types import FloatArray


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = LatticeConfig(embedding_dimension=24, size=(4, 3, 3), channels=16, face_channels=4, steps=4)
    save_lattice(tmp_path / "small", LatticeCheckpoint(Lattice3D(config), "a-space:0123"))
    return tmp_path / "small"


def test_a_worker_processes_as_its_lattice_does(folder: Path) -> None:
    worker = Lattice(folder)
    rows: FloatArray = np.eye(3, 24, dtype=np.float32)
    np.testing.assert_array_equal(worker.process(rows), process(worker.checkpoint.lattice, rows))


def test_a_worker_says_what_it_holds(folder: Path) -> None:
    described = Lattice(folder).describe()
    assert described["teacher"] == {"fingerprint": "a-space:0123"}
    assert (described["lattice"]["name"], described["lattice"]["dimension"]) == ("small", 24)
    assert described == Lattice(str(folder)).describe()


def test_a_missing_lattice_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(CellularError, match="no checkpoint"):
        Lattice(tmp_path / "none")
