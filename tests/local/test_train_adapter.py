"""An adapter trains from text on Ray, on two workers, and begins with the ridge in closed form."""

from pathlib import Path

import numpy as np
import pytest

from cellular.adapter import PairSums, UniversalAdapter, load_maps, ridge
from cellular.config import CorpusConfig, ResourceConfig, TeacherConfig
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.training.adapter_config import PairLoopConfig, TrainAdapterConfig
from cellular.training.config import ScheduleConfig, TrainingDataConfig, WorkersConfig
from pipelines.progress import silent
from pipelines.train_adapter import run
from pipelines.training_run import TrainReport

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
TEXTS = [f"{word} {number} {word[::-1]} of {number % 7}" for number in range(40) for word in ("ship", "owl")]
STEPS = 60


def configure(target: Path) -> TrainAdapterConfig:
    corpus = target.parent / "texts.txt"
    if not corpus.exists():
        corpus.write_text("\n".join(TEXTS))
    return TrainAdapterConfig(
        target=target,
        data=TrainingDataConfig(
            corpus=CorpusConfig(inputs=(str(corpus),)), teacher=TeacherConfig(name="hash:32"), held_out=0.2
        ),
        source=TeacherConfig(name="hash:48"),
        strategy="autoencoder",
        width=8,
        schedule=ScheduleConfig(steps=STEPS),
        loop=PairLoopConfig(batch_pairs=32, log_seconds=0),
        workers=WorkersConfig(workers=2, gpu=False, worker_cpus=0.7),
        embedding=ResourceConfig(embedders=1, embedder_cpus=0.5, task_cpus=0.5),
    )


@pytest.fixture(scope="module")
def trained(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    return run(configure(tmp_path_factory.mktemp("adapter") / "run"), track=silent)


def test_training_improves_on_the_ridge(trained: TrainReport) -> None:
    assert trained.path and trained.steps == STEPS
    assert trained.held_out_before and trained.held_out_after
    assert trained.held_out_after < trained.held_out_before


def test_the_adapter_maps_between_the_two_teachers(trained: TrainReport) -> None:
    assert trained.path
    adapter = UniversalAdapter.load(trained.path)
    source, target = HashTeacher(48), HashTeacher(32)
    adapter.check_source(source.fingerprint)
    adapter.check_target(target.fingerprint)
    near = (adapter(source.encode(TEXTS)) * target.encode(TEXTS)).sum(1).mean()
    back = (adapter(target.encode(TEXTS), reverse=True) * source.encode(TEXTS)).sum(1).mean()
    assert min(near, back) > 0.8
    assert "Adapter from hash:48 to hash:32" in (trained.path / "README.md").read_text()


def test_the_start_is_the_ridge_of_all_pairs(trained: TrainReport) -> None:
    assert trained.path
    (start,) = trained.path.parent.glob("data/*/pairs-*/start.safetensors")
    sums = [PairSums.load(path) for path in sorted(start.parent.glob("sums/train/*.safetensors"))]
    there, back = load_maps(start)
    assert PairSums.total(sums).count == trained.examples
    candidates = [ridge(PairSums.total(sums), 10.0**power).weight for power in range(-5, 1)]
    assert any(np.array_equal(there.weight, weight) for weight in candidates)
    assert back.weight.shape == (32, 48)


def test_a_finished_training_is_not_trained_again(trained: TrainReport) -> None:
    assert trained.path
    assert run(configure(trained.path.parent), track=silent) == trained


def test_another_strategy_in_the_same_target_is_refused(trained: TrainReport) -> None:
    assert trained.path
    config = configure(trained.path.parent).model_copy(update={"strategy": "linear"})
    with pytest.raises(CellularError, match=r"other settings or data.*--restart"):
        run(config, track=silent)
