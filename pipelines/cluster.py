"""The Ray cluster that a pipeline runs on."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.data

from cellular.errors import CellularError

NO_PROGRESS_SECONDS = 3_600.0  # the longest that one item may take before a stage counts as hung
CONNECT_SECONDS = 3.0
GPU_PATIENCE_S = 5.0


@contextmanager
def connected() -> Iterator[None]:
    """Use the cluster that is already connected, the one that RAY_ADDRESS names, or a local one.

    What was started or connected here ends with the block. In it all printing goes to standard error: Ray
    prints its warnings to standard output, where a command's JSON belongs.
    """
    if ray.is_initialized():
        yield
        return
    with redirect_stdout(sys.stderr):
        _connect()
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise a worker's CellularError as it was, without Ray's wrapping."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            inner = getattr(cause, "cause", None)
            for known in (inner, cause, *getattr(cause, "worker_failures", {}).values()):
                if type(known) is CellularError:
                    raise CellularError(str(known)) from None
            cause = inner if isinstance(inner, BaseException) else cause.__cause__
        raise


def gpus_each(asked: float | None, useful: bool) -> float:
    """GPUs of a worker: as asked, or one if the worker can use it and the cluster has one free."""
    if asked is not None:
        return asked
    return float(useful and _has_free_gpu())


def resources(cpus: float, gpus: float) -> dict[str, Any]:
    """Options of a worker: what it takes of the cluster, and that it sees no GPU that it does not take."""
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus}
    if not gpus and has_gpus():  # all workers would go to the first one
        options["runtime_env"] = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}}
    return options


def room(cpus: float, gpus: float) -> int:
    """How many workers that take so much the cluster has room for as it is now, at least one."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    by_cpu = there.get("CPU", 0.0) / cpus
    by_gpu = there.get("GPU", 0.0) / gpus if gpus else by_cpu
    return max(1, int(min(by_cpu, by_gpu)))


def has_gpus() -> bool:
    """Whether any node of the cluster has a GPU."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return there.get("GPU", 0.0) > 0


def _has_free_gpu() -> bool:
    """Whether some GPU is nobody's, or is soon: what ended just now is counted for a moment."""
    until = time.monotonic() + GPU_PATIENCE_S
    while has_gpus():
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        if free.get("GPU", 0.0) >= 1:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return False


def unreachable(address: str) -> str | None:
    """Why nothing answers at HOST:PORT, where Ray itself would wait for minutes; None: something does."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return None
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error) or "no answer"
    return None


def _connect() -> None:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # or Ray's C++ warnings land on the terminal
    address = os.environ.get("RAY_ADDRESS")
    if address and (reason := unreachable(address)) is not None:
        raise CellularError(f"no Ray cluster answers at RAY_ADDRESS={address}: {reason}")
    connect = partial(
        ray.init,
        address or "local",
        include_dashboard=None if address else False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    with _own_sigterm_handler(), _nothing_on_standard_error():
        try:
            try:
                connect()
            except Exception:
                if address:
                    raise
                connect()  # Ray gives its agent 15 seconds (ray-project/ray#65983), few on a busy machine
        except Exception as error:
            failed = f"the Ray cluster at {address} refuses" if address else "Ray does not start"
            raise CellularError(f"{failed}: {error}") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs as an error it raises too
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS


@contextmanager
def _nothing_on_standard_error() -> Iterator[None]:
    """Silence Ray's C++, which says that it is to log less. What fails is raised."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep the caller's handler, which `ray.init` replaces."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
