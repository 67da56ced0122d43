"""What happens to trainings, for the tests of those that run on Ray Train."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import state


def checkpoints(target: Path) -> list[Path]:
    """The checkpoints that a run would go on from, the latest last."""
    listing = target / "run" / "checkpoint_manager_snapshot.json"
    known = listing.read_text() if listing.exists() else ""
    return sorted(path for path in target.glob("run/checkpoint_*") if f'"{path.name}"' in known)


def wait_for_checkpoint(target: Path, alive: Callable[[], bool], after: Path | None = None) -> Path:
    """The first checkpoint there is, or the first after another."""
    while not (later := [path for path in checkpoints(target) if after is None or path.name > after.name]):
        assert alive()
        time.sleep(0.005)
    return later[0]


def kill_worker() -> int:
    """End a worker of the training that runs, and tell its process id."""
    process = _worker_processes()[0]
    os.kill(process, signal.SIGKILL)
    return process


def wait_for_end() -> None:
    """Return once nothing of another job's training is alive: its controller outlives a killed driver."""
    while any(_is_others(actor) for actor in state.actors().values()):
        time.sleep(0.005)


@contextmanager
def killed_worker(target: Path) -> Iterator[list[int]]:
    """Kill a worker of the training in the block once there is a checkpoint; its process id, at the end."""
    killed: list[int] = []
    finished = threading.Event()

    def kill_one() -> None:
        wait_for_checkpoint(target, lambda: not finished.is_set())
        killed.append(kill_worker())

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        yield killed
    finally:
        finished.set()
        killer.join()


def _is_others(actor: dict[str, Any]) -> bool:
    trains = any(name in actor["ActorClassName"] for name in ("RayTrainWorker", "TrainController"))
    return trains and actor["State"] != "DEAD" and actor["JobID"] != ray.get_runtime_context().get_job_id()


def _worker_processes() -> list[int]:
    """The processes of Ray Train's workers that are alive."""
    actors = state.actors().values()
    return [a["Pid"] for a in actors if "RayTrainWorker" in a["ActorClassName"] and a["State"] == "ALIVE"]
