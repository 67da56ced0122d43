"""Training through Ray Train: it survives what kills its parts, and learns as if nothing had happened."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellular.config import CorpusConfig, ResourceConfig, TeacherConfig
from cellular.decoders.ret import RETDecoder
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.training.config import (
    OptimizerConfig,
    RETLoopConfig,
    ScheduleConfig,
    TrainingDataConfig,
    TrainRETConfig,
    WorkersConfig,
)
from pipelines.progress import silent
from pipelines.train_ret import run
from pipelines.training_log import read_metrics
from pipelines.training_run import TrainReport
from tests.local.trainings import checkpoints, kill_worker, wait_for_checkpoint, wait_for_end

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
STEPS = 80
TEXTS = [
    "The cat sat on the mat.",
    "A dog barked all night.",
    "Rain is falling.",
    "We go home.",
    "Two men are talking.",
    "Is it late?",
    "She likes green tea.",
    "Boats sail at dawn.",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(TEXTS))
    return path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, corpus: Path, cluster: str) -> TrainReport:
    """A training that nothing happened to. The others use its data."""
    return run(configure(tmp_path_factory.mktemp("uninterrupted") / "run", corpus), track=silent)


def configure(target: Path, corpus: Path, **settings: Any) -> TrainRETConfig:
    defaults: dict[str, Any] = {
        "target": target,
        "data_folder": corpus.parent / "data",
        "data": TrainingDataConfig(
            corpus=CorpusConfig(inputs=(str(corpus),)),
            teacher=TeacherConfig(name="hash:384"),
            held_out=0.0,
        ),
        "applications": 2,
        "schedule": ScheduleConfig(steps=STEPS),
        "optimizer": OptimizerConfig(average_steps=10),
        "loop": RETLoopConfig(batch_tokens=256, tick_steps=5, log_seconds=1000, checkpoint_steps=20),
        "workers": WorkersConfig(workers=2, gpu=False),
        "embedding": ResourceConfig(embedder_cpus=0.5),
    }
    return TrainRETConfig(**(defaults | settings))


def decoded(report: TrainReport) -> list[str]:
    assert report.path
    decoder = RETDecoder.load(report.path, engine="torch")
    return list(decoder.decode_batch(HashTeacher(384).encode(TEXTS)))


def test_a_killed_worker_a_killed_driver_and_other_workers_cost_nothing_but_time(
    tmp_path: Path,
    corpus: Path,
    cluster: str,
    uninterrupted: TrainReport,
    start_job: Callable[..., subprocess.Popen[str]],
) -> None:
    """It begins with as many workers as there is room for, loses one, loses its driver, and ends with one."""
    elastic = WorkersConfig(workers=4, min_workers=1, gpu=False, worker_cpus=0.7)
    config = configure(tmp_path / "run", corpus, workers=elastic)
    process = start_job("train_ret", config, address=cluster)
    first = wait_for_checkpoint(config.target, lambda: process.poll() is None)
    kill_worker()
    wait_for_checkpoint(config.target, lambda: process.poll() is None, after=checkpoints(config.target)[-1])
    process.kill()
    process.wait()
    wait_for_end()
    latest = checkpoints(config.target)[-1]
    assert latest.name > first.name
    saved = json.loads((latest / "state.json").read_text())
    before = len((config.target / "metrics.jsonl").read_text().splitlines())
    assert 1 <= saved["metrics"]["workers"] < 4
    alone = config.model_copy(update={"workers": WorkersConfig(workers=1, gpu=False)})
    report = run(alone, track=silent)
    resumed = (config.target / "metrics.jsonl").read_text().splitlines()[before:]
    assert json.loads(resumed[0])["step"] > saved["steps"] > 0
    curve = read_metrics(config.target)
    assert [metrics["step"] for metrics in curve] == [0, 20, 40, 60, 80]
    assert curve[-1]["workers"] == 1
    assert report.steps == STEPS
    assert report.loss == pytest.approx(uninterrupted.loss, rel=0.05)
    assert decoded(report) == decoded(uninterrupted) == TEXTS


def test_a_finished_training_is_not_trained_again(corpus: Path, uninterrupted: TrainReport) -> None:
    assert uninterrupted.path
    target = uninterrupted.path.parent
    curve = read_metrics(target)
    assert run(configure(target, corpus), track=silent) == uninterrupted
    assert read_metrics(target) == curve


def test_fine_tuning_lowers_the_loss_on_a_corpus_of_its_own_also_in_two_runs(
    tmp_path: Path, uninterrupted: TrainReport
) -> None:
    own = tmp_path / "own.txt"
    own.write_text("".join(f"The boat number {number} sails.\n" for number in range(60)))
    config = configure(
        tmp_path / "run",
        own,
        base=str(uninterrupted.path),
        applications=None,
        schedule=ScheduleConfig(steps=30),
        workers=WorkersConfig(workers=1, gpu=False),
    )
    config = config.model_copy(update={"data": config.data.model_copy(update={"held_out": 0.2})})
    paused = run(config, run_seconds=0.001, track=silent)
    assert paused.path is None and 0 < paused.steps < 30
    report = run(config, track=silent)
    assert report.steps == 30
    assert report.held_out_before and report.held_out_after
    assert report.held_out_after < 0.7 * report.held_out_before


def test_another_teacher_is_refused_unless_it_gets_a_projection(
    tmp_path: Path, uninterrupted: TrainReport
) -> None:
    own = tmp_path / "own.txt"
    own.write_text("\n".join(TEXTS))
    data = TrainingDataConfig(
        corpus=CorpusConfig(inputs=(str(own),)), teacher=TeacherConfig(name="hash:768"), held_out=0.0
    )
    config = configure(tmp_path / "run", own, base=str(uninterrupted.path), applications=None, data=data)
    with pytest.raises(CellularError, match=r"reads hash:384 .*, not hash:768 .*--only projection"):
        run(config, track=silent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": ScheduleConfig(steps=STEPS + 1)}, r"other settings or data.*--restart"),
        ({"base": "/missing"}, "no checkpoint /missing"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(
    corpus: Path, uninterrupted: TrainReport, changes: dict[str, Any], message: str
) -> None:
    assert uninterrupted.path
    with pytest.raises(CellularError, match=message):
        run(configure(uninterrupted.path.parent, corpus, **changes), track=silent)


def test_a_teacher_of_another_dimension_is_refused_before_it_embeds(tmp_path: Path, corpus: Path) -> None:
    data = TrainingDataConfig(
        corpus=CorpusConfig(inputs=(str(corpus),)), teacher=TeacherConfig(name="hash:100")
    )
    with pytest.raises(CellularError, match="100 numbers: RET reads 384 or 768"):
        run(configure(tmp_path / "run", corpus, data=data, data_folder=None), track=silent)
    assert not list(tmp_path.glob("run/data/*/train/*"))


def test_a_mistake_found_on_a_worker_is_a_plain_error(
    tmp_path: Path, corpus: Path, uninterrupted: TrainReport
) -> None:
    loop, workers = RETLoopConfig(fused=True), WorkersConfig(gpu=False, max_failures=0)
    with pytest.raises(CellularError, match=r"^our kernels need a Hopper GPU"):
        run(configure(tmp_path / "run", corpus, loop=loop, workers=workers), track=silent)
