"""Whether this machine can do the work: what is installed, what it can compute, what answers."""

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from cellular.bank import PhraseBank
from cellular.config import INT8, TeacherConfig
from cellular.decoders import default_bank_path
from cellular.errors import CellularError
from cellular.int8_graphs import known_agreement
from cellular.teachers import TEACHERS, SentenceTransformerTeacher, load_teacher

LIBRARIES = ("torch", "sentence-transformers", "openvino", "faiss-cpu", "pyarrow", "ray", "fastapi", "lmdb")
GIB = 1 << 30
LEAST_DISK = 2 * GIB
LEAST_MEMORY = 2 * GIB


class Finding(NamedTuple):
    """One thing that was looked at. `remedy` says what to do where it is a problem."""

    subject: str
    status: Literal["ok", "problem"]
    detail: str
    remedy: str = ""


def run() -> Iterator[Finding]:
    """Look at everything; findings come as they are made. Nothing is changed, a cluster is only asked."""
    for check in CHECKS:
        yield from check()


def check_libraries() -> Iterator[Finding]:
    """Versions of what the work rests on."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in LIBRARIES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "problem", "not installed", "run `make install`")


def check_processor() -> Iterator[Finding]:
    """Cores, and what makes the teacher fast."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = _processor_flags()
    native = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512_vnni", "bf16") if flag in flags]
    speed = ", ".join(native) if native else "no bf16 instructions: the teacher runs in fp32"
    yield Finding("processor", "ok", f"{cores} cores; {speed}")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield Finding("GPU", "ok", ", ".join(gpus) or "none: the teacher runs on the processor")


def check_teachers() -> Iterator[Finding]:
    """Every teacher in TEACHERS: does it load, and how fast?"""
    for name in TEACHERS:
        start = time.perf_counter()
        try:
            teacher = load_teacher(TeacherConfig(name=name))
            teacher.encode(["A sentence."])
        except CellularError as error:
            yield Finding(f"teacher {name}", "problem", "does not load", str(error))
        else:
            seconds = time.perf_counter() - start
            detail = f"{teacher.dimension} dimensions, ready in {seconds:.1f} s"
            if isinstance(teacher, SentenceTransformerTeacher):
                detail += f", {teacher.precision} by {teacher.engine}"
            yield Finding(f"teacher {name}", "ok", detail)
            agreement = known_agreement(teacher.fingerprint)
            if agreement is not None:
                detail = f"the same nearest neighbour as in fp32 for {agreement:.1%} of held-out sentences"
                yield Finding(f"teacher {name}{INT8}", "ok", detail)


def check_bank() -> Iterator[Finding]:
    """The bank that is used where none is named."""
    path = default_bank_path()
    if not path.exists():
        yield Finding("default bank", "ok", f"none in {path}: `cellular demo` makes one")
        return
    try:
        yield Finding("default bank", "ok", f"{len(PhraseBank.open(path)):,} phrases in {path}")
    except CellularError as error:
        yield Finding("default bank", "problem", "does not open", str(error))


def check_cluster() -> Iterator[Finding]:
    """The Ray cluster that RAY_ADDRESS names."""
    from pipelines.cluster import unreachable

    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        yield Finding("cluster", "ok", "RAY_ADDRESS names none: commands start Ray on this machine")
    elif (reason := unreachable(address)) is not None:
        remedy = "start it (`ray start --head`), or correct or unset RAY_ADDRESS"
        yield Finding("cluster", "problem", f"{address}: {reason}", remedy)
    else:
        yield _ask_cluster(address)


def check_authentication() -> Iterator[Finding]:
    """Whether clusters and this machine will agree on a token."""
    mode = os.environ.get("RAY_AUTH_MODE")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    has_token = bool(os.environ.get("RAY_AUTH_TOKEN")) or token.is_file()
    if mode == "token" and os.environ.get("RAY_ADDRESS") and not has_token:
        remedy = f"copy the cluster's token to {token}, or run `ray get-auth-token --generate`"
        yield Finding("authentication", "problem", "RAY_AUTH_MODE=token, but there is no token", remedy)
    else:
        found = f"a token in {token}" if token.is_file() else "no token file"
        yield Finding(
            "authentication", "ok", f"RAY_AUTH_MODE={mode or '(unset: commands use token)'}; {found}"
        )


def check_space() -> Iterator[Finding]:
    """Free memory, and free disk where banks and Ray's spilled objects go."""
    if (memory := _free_memory()) is not None:
        yield _enough("memory", "", memory, LEAST_MEMORY, "end other programs or take a larger machine")
    for use, folder in (("banks", default_bank_path()), ("Ray's objects", Path("/tmp"))):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        yield _enough(f"disk for {use}", f" in {existing}", free, LEAST_DISK, "free some space")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_libraries,
    check_processor,
    check_teachers,
    check_bank,
    check_authentication,
    check_cluster,
    check_space,
)


def _enough(subject: str, place: str, free: int, least: int, remedy: str) -> Finding:
    detail = f"{free / GIB:.1f} GiB free{place}"
    return Finding(subject, "ok", detail) if free >= least else Finding(subject, "problem", detail, remedy)


def _processor_flags() -> set[str]:
    """Linux tells; elsewhere nothing is known."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}


def _free_memory() -> int | None:
    path = Path("/proc/meminfo")
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def _ask_cluster(address: str) -> Finding:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    except (ConnectionError, RuntimeError) as error:
        remedy = "export RAY_AUTH_MODE as the cluster has it, and see that its Ray is of this version"
        return Finding("cluster", "problem", f"{address} refuses: {str(error).splitlines()[0]}", remedy)
    finally:
        ray.shutdown()
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    return Finding("cluster", "ok", f"{address}: {nodes} nodes, {cpus:.0f} CPUs, {gpus:.0f} GPUs")
