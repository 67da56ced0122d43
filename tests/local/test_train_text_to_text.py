"""Text to text through Ray Train: from files to a model, by two workers."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.cct import TextToText
from cellular.errors import CellularError
from cellular.lattice import LatticeConfig
from cellular.training.text_to_text_config import TASKS, TrainTextToTextConfig
from pipelines.progress import silent
from pipelines.train_text_to_text import run
from pipelines.training_run import TrainReport

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TURNS = ["Is it late?", "It is noon.", "Then we eat.", "Green tea?", "Yes please."]


def configure(folder: Path, **settings: Any) -> TrainTextToTextConfig:
    lattice = LatticeConfig(
        embedding_dimension=64, size=(2, 4, 4), steps=2, channels=16, face_channels=4, update_probability=1.0
    )
    shape = {"hidden": 64, "heads": 2, "inner": 96, "encoder_layers": 1, "decoder_layers": 1, "slots": 8}
    defaults = {
        "target": folder / "run",
        "data_folder": folder / "data",
        "data": {
            "corpus": {"inputs": [str(folder / "*.parquet")]},
            "tasks": {name: TASKS[name] for name in ("reconstruct", "reply")},
            "held_out": 0.0,
        },
        "shape": {**shape, "lattice": lattice},
        "piece_drop": 0.0,
        "schedule": {"steps": 60},
        "optimizer": {"average_steps": 10, "rate": 1e-2},
        "loop": {"batch_tokens": 400, "pass_tokens": 100, "tick_steps": 20, "log_seconds": 1000},
        "workers": {"workers": 2, "gpu": False},
    }
    return TrainTextToTextConfig.model_validate(defaults | settings)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, cluster: str
) -> tuple[TrainTextToTextConfig, TrainReport]:
    folder = tmp_path_factory.mktemp("text_to_text")
    for name in ("one", "other"):
        columns = {"text": TURNS, "dialogue_id": [name] * len(TURNS), "turn": range(len(TURNS))}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    config = configure(folder)
    return config, run(config, origin={"command": "a test"}, track=silent)


def test_two_workers_train_a_model_on_both_tasks(
    trained: tuple[TrainTextToTextConfig, TrainReport],
) -> None:
    _, report = trained
    assert report.path and report.examples == 2 * (len(TURNS) + len(TURNS) - 1)
    assert report.loss < 3
    model = TextToText.load(report.path)
    assert model.tasks == ("reconstruct", "reply")
    assert len(model.generate(TURNS, 16, "reply")) == len(TURNS)
    card = (report.path / "README.md").read_text("utf-8")
    assert "reconstruct x 1, reply x 1" in card and "`a test`" in card


def test_a_finished_training_is_not_trained_again_and_another_is_refused(
    trained: tuple[TrainTextToTextConfig, TrainReport],
) -> None:
    config, report = trained
    assert run(config, track=silent) == report
    with pytest.raises(CellularError, match=r"other settings or data.*--restart"):
        run(config.model_copy(update={"piece_drop": 0.5}), track=silent)
    data = config.data.model_copy(update={"max_characters": 11})
    with pytest.raises(CellularError, match="holds other pairs"):
        run(config.model_copy(update={"data": data}), track=silent)


def test_a_format_without_columns_is_refused(tmp_path: Path, cluster: str) -> None:
    (tmp_path / "texts.txt").write_text("One line.\nAnother line.\n")
    data = {"corpus": {"inputs": [str(tmp_path / "texts.txt")]}}
    with pytest.raises(CellularError, match=r"texts\.txt is text: pairs are read from Parquet"):
        run(configure(tmp_path, data=data), track=silent)
