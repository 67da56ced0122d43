"""What a training says, as it is read again."""

import json
from pathlib import Path

from cellular.config import CorpusConfig
from cellular.decoders.ret.checkpoint import Checkpoint, TeacherInfo
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.training.config import ScheduleConfig, TrainingDataConfig, TrainRETConfig
from pipelines.model_card import ret_card
from pipelines.training_log import MetricsFile, TensorBoardLog, describe, read_metrics

METRICS = {"step": 1200, "progress": 0.5, "seconds": 61.2, "loss": 1.5, "tokens_per_second": 4e6}


def test_what_a_restart_repeated_is_in_the_curve_once(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    for step, loss in ((10, 3.0), (20, 2.0), (30, 1.5), (20, 2.1), (30, 1.4)):
        log.log({"step": step, "loss": loss})
    assert [(m["step"], m["loss"]) for m in read_metrics(tmp_path)] == [(10, 3.0), (20, 2.1), (30, 1.4)]


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    MetricsFile(tmp_path).after_report(None, [{"step": 1, "mfu": None}, {"step": 1}], None)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1}
    assert read_metrics(tmp_path / "missing") == []


def test_a_line_of_progress_has_what_a_person_looks_for() -> None:
    line = describe(METRICS | {"held_out_loss": 1.6, "mfu": 0.301})
    assert line == "step 1,200  50%  loss 1.5000  held out 1.6000  4,000,000 tokens/s  MFU 30.1%  61 s"
    assert describe({"step": 0, "progress": 0.0, "seconds": 0.0}) == "step 0  0%  0 s"


def test_tensorboard_gets_one_file_a_run(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    for step in range(3):
        log.log({"step": step, "loss": 1.0})
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_card_names_the_data_the_command_the_commit_and_the_curve() -> None:
    data = TrainingDataConfig(corpus=CorpusConfig(inputs=("/somewhere/captions.parquet",)))
    config = TrainRETConfig(target=Path("target"), data=data, schedule=ScheduleConfig(seconds=60))
    facts = {
        "examples": 1234,
        "steps": 5000,
        "seconds": 60.0,
        "command": "cellular ret train x",
        "commit": "abc",
    }
    teacher = TeacherInfo(name="hash:384", fingerprint="hash:0180", dimension=384)
    checkpoint = Checkpoint(RET(RETConfig()), Vocabulary.load(), teacher, facts)
    card = ret_card(config, checkpoint, [METRICS | {"step": step} for step in range(1, 101)])
    for word in (
        "722,944",
        "hash:0180",
        "1,234 unique texts",
        "captions.parquet",
        "cellular ret train x",
        "abc",
    ):
        assert word in card
    assert "/somewhere" not in card
    rows = [line for line in card.splitlines() if line.startswith("| ") and "1.5" in line]
    assert len(rows) == 20 and rows[-1].startswith("| 100 ")
