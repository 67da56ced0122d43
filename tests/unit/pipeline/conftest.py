"""Small pieces of every kind, all of the teacher hash:384 but for the adapter's source."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cellular.adapter import AdapterConfig, Space, UniversalAdapter, make_network
from cellular.cct import CCT, CCTConfig, TextToTextCheckpoint, save_text_to_text
from cellular.decoders.ret import Vocabulary
from cellular.lattice import Lattice3D, LatticeCheckpoint, LatticeConfig, save_lattice
from cellular.teachers import HashTeacher

Settings = dict[str, Any]


def space(dimension: int) -> Space:
    teacher = HashTeacher(dimension)
    return Space(name=teacher.name, fingerprint=teacher.fingerprint, dimension=dimension)


@pytest.fixture(scope="session")
def lattice_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LatticeConfig(embedding_dimension=384, size=(4, 3, 3), channels=16, face_channels=4, steps=4)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        lattice = Lattice3D(config)
    folder = tmp_path_factory.mktemp("lattices") / "small"
    save_lattice(folder, LatticeCheckpoint(lattice, HashTeacher(384).fingerprint))
    return folder


@pytest.fixture(scope="session")
def dialogue_lattice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that reads earlier turns."""
    folder = tmp_path_factory.mktemp("lattices") / "dialogue"
    config = LatticeConfig(size=(3, 2, 2), channels=16, face_channels=4, steps=3, history=16)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        save_lattice(folder, LatticeCheckpoint(Lattice3D(config), HashTeacher(384).fingerprint))
    return folder


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = make_network(AdapterConfig(strategy="linear", source_dimension=64, target_dimension=384))
    folder = tmp_path_factory.mktemp("adapters") / "small"
    UniversalAdapter(network, space(64), space(384)).save(folder)
    return folder


@pytest.fixture
def direct(lattice_folder: Path, ret_checkpoint: Path) -> Settings:
    return {
        "mode": "direct",
        "teacher": {"name": "hash:384"},
        "lattice": {"checkpoint": lattice_folder},
        "decoder": {"checkpoint": ret_checkpoint},
    }


@pytest.fixture
def hybrid(direct: Settings, adapter_folder: Path) -> Settings:
    changes = {
        "mode": "hybrid",
        "teacher": {"name": "hash:64"},
        "adapter": {"checkpoint": adapter_folder},
    }
    return {**direct, **changes}


@pytest.fixture(scope="session")
def text_to_text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {"embedding_dimension": 32, "size": (3, 2, 2), "channels": 16, "face_channels": 4, "steps": 3}
    config = CCTConfig(
        hidden=32,
        heads=2,
        inner=32,
        encoder_layers=1,
        decoder_layers=1,
        slots=4,
        tasks=("say", "answer"),
        lattice=LatticeConfig.model_validate(shape),
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = CCT(config).eval()
    folder = tmp_path_factory.mktemp("models") / "small"
    save_text_to_text(folder, TextToTextCheckpoint(model, Vocabulary.load()))
    return folder


@pytest.fixture
def text_to_text(text_to_text_folder: Path) -> Settings:
    model = {"checkpoint": text_to_text_folder, "task": "answer", "max_length": 12}
    return {"mode": "text_to_text", "text_to_text": model}
