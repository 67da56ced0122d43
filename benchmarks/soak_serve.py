"""Memory of every process under mixed load: `python -m benchmarks.soak_serve --minutes 20`.

What leaks shows as a slope that does not end; what is bounded (sessions, caches, allocators) rises and stays.
Each stage has one replica throughout, so that a curve is one process from its start to its end.
"""

import asyncio
import itertools
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer

from benchmarks.serve_load import Answer, Request, Summary, closed_loop, post, sentences
from benchmarks.serve_report import PICTURES, record
from cellular.bank import create_bank
from cellular.config import TeacherConfig
from cellular.teachers import load_teacher
from serve import app
from serve.settings import BankSettings, ServeConfig, Sessions

PICTURE = "serve_memory.svg"
SAMPLE_S = 5.0
Curves = dict[str, list[tuple[float, float]]]  # seconds and MB, by process


def mixed(url: str) -> list[Request]:
    """Every route and decoder that is served; each of 3,000 sessions in turn, and what is refused."""
    texts = itertools.cycle(sentences(500))
    kinds = {model["kind"] for model in httpx.get(f"{url}/v1/models").json()["data"]}
    requests: list[Request] = []
    for number in range(3_000):
        text = next(texts)
        requests += [
            post("/v1/embeddings", input=[text, next(texts)]),
            post("/v1/decode", texts=[text], decoder="phrase_bank"),
            post("/v1/decode", texts=[text], decoder="phrase_bank", session_id=f"s{number}"),
            post("/v1/decode", texts=[text], decoder="ret"),
            post("/v1/decode", texts=[text], decoder="ret", stream=True, max_length=32),
            post("/v1/decode", texts=[text], decoder="ret", beam=99),
        ]
        if number % 10 == 0:
            requests.append(post("/v1/decode", texts=[text], decoder="hybrid", max_teacher_calls=9))
        if "lattice" in kinds:
            requests.append(post("/v1/generate", texts=[text], mode="direct"))
        if "text_to_text" in kinds:
            requests.append(post("/v1/generate", texts=[text], mode="text_to_text", max_length=32))
    return requests


@contextmanager
def watched(curves: Curves) -> Iterator[None]:
    """Note the memory of every Serve process below this one, while the block runs."""
    stopped, start = threading.Event(), time.monotonic()

    def watch() -> None:
        while not stopped.wait(SAMPLE_S):
            for process in psutil.Process().children(recursive=True):
                try:
                    title = process.cmdline()[0].partition(".")[0].strip()
                    if title.startswith(("ray::Serve", "ray::Proxy")):
                        name = f"{title.rpartition(':')[2]} {process.pid}"
                        point = (time.monotonic() - start, process.memory_full_info().uss / 1e6)
                        curves.setdefault(name, []).append(point)
                except (psutil.Error, IndexError):  # it ended meanwhile
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    stopped.set()
    thread.join()


def highest(curve: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """MB at most in a part of the time: what a process frees and takes again makes no slope."""
    return max(megabytes for _, megabytes in curve[int(begin * len(curve)) : int(end * len(curve)) + 1])


def draw(curves: Curves, path: Path) -> None:
    """A line for each process."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    figure, axes = plt.subplots(figsize=(9, 5))
    for name, curve in sorted(curves.items()):
        seconds, megabytes = np.array(curve).T
        axes.plot(seconds / 60, megabytes, label=name.partition(" ")[0])
    axes.set(xlabel="minutes", ylabel="memory of its own, MB", ylim=(0, None), xlim=(0, None))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def table(curves: Curves, answers: Sequence[Answer]) -> list[str]:
    """What stands beside the picture."""
    statuses = ", ".join(f"{count} × {one}" for one, count in Counter(one.status for one in answers).items())
    lines = [
        f"{Summary.of(answers).rate:.0f} accepted requests a second of every route; statuses: {statuses}",
        "(422 is a beam that is too wide, which is sent on purpose).",
        "",
        f"![memory of each process](../../docs/{PICTURE})",
        "",
        "| | MB at the start | MB at most in the second quarter | MB at most in the last quarter |",
        "|---|---|---|---|",
    ]
    for name, curve in sorted(curves.items()):
        cells = (curve[0][1], highest(curve, 0.25, 0.5), highest(curve, 0.75, 1))
        lines.append(f"| {name.partition(' ')[0]} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")
    return lines


def one_replica_each() -> dict[str, app.Options]:
    """Those of config.yaml, without autoscaling."""
    options = app.deployment_options()
    for one in options.values():
        one.pop("autoscaling_config", None)
    return options


def main(
    minutes: Annotated[float, typer.Option(help="of load")] = 20,
    clients: Annotated[int, typer.Option(help="that do not pause")] = 6,
    fused: Annotated[bool, typer.Option(help="all stages in one process")] = False,
) -> None:
    """Serve everything, send everything, and draw the memory."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    options = one_replica_each()
    app.deployment_options = lambda: options  # this process has one application
    curves: Curves = {}
    with tempfile.TemporaryDirectory() as folder:
        create_bank(Path(folder), sentences(500), load_teacher(TeacherConfig()))
        config = ServeConfig(
            banks={"topics": BankSettings(folder=Path(folder))}, fused=fused, sessions=Sessions(number=1_000)
        )
        with app.running(config, port=0) as url:
            requests = mixed(url)
            with watched(curves):
                answers = asyncio.run(closed_loop(url, requests, clients, 60 * minutes))
    draw(curves, PICTURES / PICTURE)
    lines = table(curves, answers)
    print("\n".join(lines))
    form = " --fused" if fused else ""
    title = f"Memory under mixed load, {'one process' if fused else 'one replica of each stage'}"
    record(title, f"benchmarks.soak_serve --minutes {minutes:g}{form}", lines)


if __name__ == "__main__":
    typer.run(main)
