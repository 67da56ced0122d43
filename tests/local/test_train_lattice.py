"""A lattice trained through Ray Train on two CPU workers: it learns, and a killed worker costs nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cellular.config import CorpusConfig, ResourceConfig, TeacherConfig
from cellular.errors import CellularError
from cellular.lattice import LatticeConfig, load_lattice
from cellular.mlp import load_mlp
from cellular.teachers import HashTeacher
from cellular.training.config import TrainingDataConfig, WorkersConfig
from cellular.training.lattice_config import (
    EmbeddingLoopConfig,
    LatticeOptimizerConfig,
    LatticeScheduleConfig,
    LossConfig,
    PairsConfig,
    TrainLatticeConfig,
)
from pipelines.progress import silent
from pipelines.train_lattice import run
from tests.local.trainings import killed_worker

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
STEPS = 40
TURNS = 6  # of a dialogue
DIALOGUES = [[f"dialogue {number} says {turn}" for turn in range(TURNS)] for number in range(24)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dialogues") / "dialogues.parquet"
    turns = [(number, turn, DIALOGUES[number][turn]) for turn in range(TURNS) for number in range(24)]
    columns = dict(zip(("dialogue", "turn", "text"), map(list, zip(*turns, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path)
    return path


def configure(target: Path, corpus: Path, **settings: Any) -> TrainLatticeConfig:
    defaults: dict[str, Any] = {
        "target": target,
        "data": TrainingDataConfig(
            corpus=CorpusConfig(inputs=(str(corpus),)), teacher=TeacherConfig(name="hash:32"), held_out=0.1
        ),
        "lattice": LatticeConfig(size=(3, 2, 2), channels=16, face_channels=8, steps=4, sweeps=("raster",)),
        "loss": LossConfig(extra=16),
        "schedule": LatticeScheduleConfig(steps=STEPS),
        "optimizer": LatticeOptimizerConfig(average_steps=10),
        "loop": EmbeddingLoopConfig(batch=64, tick_steps=5, log_seconds=1000, checkpoint_steps=10),
        "workers": WorkersConfig(workers=2, gpu=False),
        "embedding": ResourceConfig(embedder_cpus=0.5),
    }
    return TrainLatticeConfig(**(defaults | settings))


def test_a_lattice_learns_the_next_turn_though_a_worker_is_killed(
    tmp_path: Path, corpus: Path, cluster: str
) -> None:
    pairs = PairsConfig(group="dialogue", order="turn")
    config = configure(tmp_path / "run", corpus, objective="map", pairs=pairs, history=2)
    with killed_worker(config.target) as killed:
        report = run(config, track=silent)
    assert killed and report.steps == STEPS and report.examples == 22 and report.path
    checkpoint = load_lattice(report.path)
    assert checkpoint.teacher == HashTeacher(32).fingerprint
    card = (report.path / "README.md").read_text()
    assert "map, with up to 2 earlier texts" in card
    settings = json.loads(card.partition("```json")[2].partition("```")[0])
    assert settings["lattice"] == checkpoint.lattice.config.model_dump(mode="json")
    assert settings["loop"]["batch"] == 64
    teacher, kept = HashTeacher(32), DIALOGUES[:12]
    source_BE, target_BE = (
        torch.from_numpy(teacher.encode([dialogue[turn] for dialogue in kept])) for turn in (2, 3)
    )
    earlier_BNE = torch.from_numpy(np.stack([teacher.encode(dialogue[:2]) for dialogue in kept]))
    with torch.inference_mode():
        found_BE = checkpoint.lattice(source_BE, earlier_BNE)
    assert float((found_BE * target_BE).sum(1).mean()) > 0.5
    assert run(config, track=silent) == report  # a finished training is not trained again


def test_an_mlp_of_as_many_parameters_learns_by_the_same_job(
    tmp_path: Path, corpus: Path, cluster: str
) -> None:
    config = configure(tmp_path / "run", corpus, model="mlp", workers=WorkersConfig(gpu=False))
    report = run(config, track=silent)
    assert report.path and report.held_out_before and report.held_out_after
    assert report.held_out_after < 0.7 * report.held_out_before
    assert load_mlp(report.path).mlp.config.embedding_dimension == 32


def test_a_column_that_is_not_there_is_said_before_anything_is_embedded(tmp_path: Path, corpus: Path) -> None:
    config = configure(
        tmp_path / "run", corpus, objective="map", pairs=PairsConfig(group="dialogue", order="place")
    )
    with pytest.raises(CellularError, match="no column 'place': choose from dialogue, turn, text"):
        run(config, track=silent)
