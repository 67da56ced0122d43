"""The shell around a training: Ray Train runs its loop, and restarts it from the last checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.train
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
)

from cellular.training.config import WorkersConfig
from pipelines.training_log import callbacks, following

NAME = "run"  # folder of Ray Train's checkpoints in the target; the same name is what makes it resume
LEAST_CPUS = 0.5  # of a worker


@dataclass(frozen=True)
class Training:
    """One training as Ray Train sees it.

    Args:
        target: folder of the run.
        loop: runs on every worker, with `settings`.
        settings: plain values.
        datasets: each is split among the workers, however many there are.
        workers: how many, and on what.
        keep: checkpoints kept.
    """

    target: Path
    loop: Callable[[dict[str, Any]], None]
    settings: dict[str, Any]
    datasets: dict[str, ray.data.Dataset]
    workers: WorkersConfig
    keep: int


def fit(training: Training) -> Path | None:
    """Train, or go on from the last checkpoint in the target. Needs a cluster.

    Returns:
        Folder of the last checkpoint, None where the loop reported none.

    Raises:
        ray.train.TrainingFailedError: the workers failed more often than they may.
    """
    run_config = RunConfig(
        name=NAME,
        storage_path=str(training.target),
        failure_config=FailureConfig(max_failures=training.workers.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=training.keep),
        callbacks=callbacks(training.target),
        logging_config=LoggingConfig(log_level="ERROR"),
    )
    trainer = TorchTrainer(
        training.loop,
        train_loop_config=training.settings,
        scaling_config=_scaling(training.workers),
        run_config=run_config,  # type: ignore[arg-type]  # annotated as V1's
        datasets=dict(training.datasets),
    )
    with following(training.target):
        result = trainer.fit()
    return Path(result.checkpoint.path) if result.checkpoint else None


def _scaling(workers: WorkersConfig) -> ScalingConfig:
    count = (workers.min_workers, workers.workers) if workers.min_workers else workers.workers
    return ScalingConfig(
        num_workers=count,
        use_gpu=bool(workers.gpu),
        resources_per_worker={"CPU": _worker_cpus(workers)} | ({"GPU": 1.0} if workers.gpu else {}),
        elastic_resize_monitor_interval_s=workers.resize_seconds,
    )


def _worker_cpus(workers: WorkersConfig) -> float:
    """As asked, or little beside a GPU, or the whole cores that the smallest node has for each."""
    if workers.worker_cpus is not None:
        return workers.worker_cpus
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    cores = [node["Resources"]["CPU"] for node in nodes if node["Alive"] and "CPU" in node["Resources"]]
    if workers.gpu or not cores:
        return LEAST_CPUS
    share: float = min(cores) // -(-workers.workers // len(cores))
    return max(LEAST_CPUS, share)
