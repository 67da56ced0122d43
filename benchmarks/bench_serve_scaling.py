"""Replicas over time while the load moves from one stage to another.

    python -m benchmarks.bench_serve_scaling

Clients decode embeddings, which RETDecoder does alone; then others embed texts, which Embedder does alone.
Each stage should follow its own load, and nothing else. Delays are shorter than those of serve/config.yaml:
all of it fits into two minutes. The Gateway joins what waits, so that replicas are added for what is too much
for one call at a time, and not for every client.
"""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import typer
from ray import serve

from benchmarks.serve_load import Answer, Request, closed_loop, post, sentences
from serve import app
from serve.settings import ServeConfig

RESULTS = Path(__file__).parent / "results"
STAGES = ("RETDecoder", "Embedder")
MOST = 4
SCALING = {
    "min_replicas": 1,
    "max_replicas": MOST,
    "target_ongoing_requests": 1.5,
    "metrics_interval_s": 0.5,
    "look_back_period_s": 2,
    "upscale_delay_s": 2,
    "downscale_delay_s": 5,
}


class Phase(NamedTuple):
    """Requests that clients send without a pause for some seconds; none: they rest."""

    name: str
    seconds: float
    requests: Sequence[Request] = ()


class Sample(NamedTuple):
    """Seconds from the start, and the replicas that answer."""

    at: float
    replicas: dict[str, int]


@contextmanager
def sampled(samples: list[Sample], start: float) -> Iterator[None]:
    """Note the replicas, while the block runs."""
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.25):
            deployments = serve.status().applications[app.NAME].deployments
            running = {name: deployments[name].replica_states.get("RUNNING", 0) for name in STAGES}
            samples.append(Sample(time.monotonic() - start, running))

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    stopped.set()
    thread.join()


def options() -> dict[str, dict[str, object]]:
    """Those of config.yaml, with shorter delays, and so that all replicas fit onto a small machine."""
    found = app.deployment_options()
    for name in STAGES:
        found[name] |= {
            "autoscaling_config": SCALING,
            "ray_actor_options": {"num_cpus": 0.2},
            "user_config": {"max_batch_size": 1, "batch_wait_timeout_s": 0},
        }
    return found


def decodes(url: str, texts: Sequence[str]) -> list[Request]:
    """Requests that need no Embedder, eight rows each."""
    answer = httpx.post(f"{url}/v1/embeddings", json={"input": texts}, timeout=60).raise_for_status()
    rows = [one["embedding"] for one in answer.json()["data"]]
    return [post("/v1/decode", embeddings=rows[n : n + 8]) for n in range(0, len(rows), 8)]


def embeds(texts: Sequence[str]) -> list[Request]:
    """Requests that need nothing but the Embedder, sixteen texts each."""
    return [post("/v1/embeddings", input=texts[n : n + 16]) for n in range(0, len(texts), 16)]


async def played(url: str, phase: Phase, clients: int) -> list[Answer]:
    """What a phase's requests came to."""
    if phase.requests:
        return await closed_loop(url, phase.requests, clients, phase.seconds)
    await asyncio.sleep(phase.seconds)
    return []


def draw(
    samples: Sequence[Sample],
    phases: Sequence[Phase],
    answers: Mapping[str, Sequence[Answer]],
    start: float,
    path: Path,
) -> None:
    """Replicas above, answers a second below."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=(3, 2))
    times = [sample.at for sample in samples]
    for name, style in zip(STAGES, ("-", "--"), strict=True):
        above.step(
            times, [sample.replicas[name] for sample in samples], style, where="post", label=name, lw=2
        )
    right = 0.0
    for phase in phases:
        left, right = right, right + phase.seconds
        above.axvspan(left, right, color="0.93" if phase.requests else "white", zorder=0)
        above.text((left + right) / 2, MOST + 0.3, phase.name, ha="center", fontsize=9)
        ends = Counter(
            int(one.begun + one.seconds - start) for one in answers[phase.name] if one.status == 200
        )
        below.bar(list(ends), list(ends.values()), width=1, align="edge", label=phase.name)
    above.set(ylabel="replicas", yticks=range(MOST + 1), ylim=(0, MOST + 0.8))
    above.legend(loc="center right")
    below.set(xlabel="seconds", ylabel="answers a second", xlim=(0, right))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main(
    seconds: Annotated[float, typer.Option(help="of each phase")] = 25,
    clients: Annotated[int, typer.Option(help="that do not pause")] = 16,
    name: Annotated[str, typer.Option(help="of the picture in results/")] = "serve_scaling.svg",
) -> None:
    """Shift the load, and draw what the stages do."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    chosen = options()
    app.deployment_options = lambda: chosen  # this process has one application
    texts = sentences(400)
    with app.running(ServeConfig(stages=("RETDecoder",)), port=0) as url:
        phases = (
            Phase("at rest", seconds / 2),
            Phase("decoding", seconds, decodes(url, texts)),
            Phase("embedding", seconds, embeds(texts)),
            Phase("at rest again", seconds),
        )
        samples: list[Sample] = []
        answers: dict[str, list[Answer]] = {}
        start = time.monotonic()
        with sampled(samples, start):
            for phase in phases:
                answers[phase.name] = asyncio.run(played(url, phase, clients))
    draw(samples, phases, answers, start, RESULTS / name)


if __name__ == "__main__":
    typer.run(main)
