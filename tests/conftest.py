"""What tests with and without a cluster share."""

import shutil
from pathlib import Path

import pytest
import torch

from cellular.adapter import Space, UniversalAdapter, make_network
from cellular.adapter.config import AdapterConfig
from cellular.cct import CCT, CCTConfig
from cellular.cct.checkpoint import TextToTextCheckpoint, save_text_to_text
from cellular.decoders.ret import (
    RET,
    Checkpoint,
    RETConfig,
    TeacherInfo,
    Vocabulary,
    save_checkpoint,
)
from cellular.lattice import Lattice3D, LatticeCheckpoint, LatticeConfig, save_lattice
from cellular.teachers import HashTeacher

PROMETHEUS = Path(__file__).parents[1] / ".venv/prometheus/usr/bin"


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Small products lose more to waiting for threads than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ret_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained decoder for the teacher hash:384: it writes noise, the same for the same embedding."""
    teacher = HashTeacher(384)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = RET(RETConfig(applications=2))
    info = TeacherInfo(name=teacher.name, fingerprint=teacher.fingerprint, dimension=teacher.dimension)
    folder = tmp_path_factory.mktemp("checkpoints") / "noise"
    save_checkpoint(folder, Checkpoint(model, Vocabulary.load(), info))
    return folder


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """The folder of `prometheus` and `promtool`: Debian's, which `make test` unpacks, or an installed one."""
    if (PROMETHEUS / "promtool").exists():
        return PROMETHEUS
    if installed := shutil.which("promtool"):
        return Path(installed).parent
    pytest.skip("no Prometheus here: `make .venv/prometheus` unpacks Debian's, where there is apt")


def save_untrained_lattice(folder: Path, **settings: int) -> Path:
    """A small lattice for the teacher hash:384."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        lattice = Lattice3D(LatticeConfig(size=(3, 2, 2), channels=16, face_channels=4, steps=3, **settings))
    save_lattice(folder, LatticeCheckpoint(lattice, HashTeacher(384).fingerprint))
    return folder


@pytest.fixture(scope="session")
def lattice_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lattice of single embeddings."""
    return save_untrained_lattice(tmp_path_factory.mktemp("checkpoints") / "lattice")


@pytest.fixture(scope="session")
def reply_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lattice that reads a dialogue's earlier turns."""
    return save_untrained_lattice(tmp_path_factory.mktemp("checkpoints") / "reply", history=16)


@pytest.fixture(scope="session")
def adapter_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained adapter from the teacher hash to hash:384."""
    spaces = [
        Space(name=teacher.name, fingerprint=teacher.fingerprint, dimension=teacher.dimension)
        for teacher in (HashTeacher(), HashTeacher(384))
    ]
    config = AdapterConfig(
        strategy="linear", source_dimension=spaces[0].dimension, target_dimension=spaces[1].dimension
    )
    folder = tmp_path_factory.mktemp("checkpoints") / "adapter"
    UniversalAdapter(make_network(config, seed=3), *spaces).save(folder)
    return folder


@pytest.fixture(scope="session")
def text_to_text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained text-to-text model: it writes noise, the same for the same text."""
    lattice = LatticeConfig(
        embedding_dimension=32, size=(2, 2, 2), steps=2, channels=16, face_channels=4, update_probability=1.0
    )
    shape = CCTConfig(
        hidden=32, heads=2, inner=48, encoder_layers=1, decoder_layers=1, slots=4, lattice=lattice
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = CCT(shape).eval()
    folder = tmp_path_factory.mktemp("checkpoints") / "text-to-text"
    save_text_to_text(folder, TextToTextCheckpoint(model, Vocabulary.load()))
    return folder
