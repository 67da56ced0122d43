"""One local Ray for every test here; it has two CPUs, whatever the machine has."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import ray.data

from cellular.config import BuildConfig, DecodeCorpusConfig
from cellular.training.config import TrainingConfig

ROOT = Path(__file__).parents[2]
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"  # reports wait for a look at the workers
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process of each training, for clouds
os.environ["RAY_LOG_MONITOR_MANY_FILES_THRESHOLD"] = "0"  # it would list all logs ten times a second
with warnings.catch_warnings(action="ignore"):  # it warns of its own settings, once a process
    DATA = ray.data.DataContext.get_current()


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of the cluster that this process is connected to."""
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={
            "idle_worker_killing_time_threshold_ms": 60_000,  # the next stage needs it again
            "enable_metrics_collection": False,  # tests/cluster have the metrics
        },
    )
    DATA.enable_progress_bars = False
    DATA.execution_no_progress_timeout_s = 60
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def start_job() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -m jobs.NAME` with a configuration; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        name: str,
        config: BuildConfig | TrainingConfig | DecodeCorpusConfig,
        *arguments: str,
        address: str = "",
    ) -> subprocess.Popen[str]:
        settings = config.target.with_suffix(".yaml")
        settings.write_text(config.model_dump_json())
        command = [sys.executable, "-m", f"jobs.{name}", "--config", str(settings), *arguments]
        environment = {**os.environ, "RAY_ADDRESS": address}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start_build(start_job: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Start a build of a bank; see `start_job`."""
    return partial(start_job, "build_phrase_bank")
