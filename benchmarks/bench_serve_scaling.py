"""Replicas over time while the load moves from one stage to another.

    python -m benchmarks.bench_serve_scaling

Clients decode embeddings, which RETDecoder does alone; then others embed texts, which Embedder does alone.
Each stage should follow its own load, and nothing else. The application is configured as it is shipped, on
Ray as `cellular serve` starts it, but that replicas go after 20 s and not after 300 s.
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

from benchmarks.serve_load import Answer, Request, Summary, closed_loop, post, sentences
from benchmarks.serve_report import PICTURES, record
from serve import app
from serve.settings import ServeConfig

PICTURE = "serve_scaling.svg"
STAGES = ("RETDecoder", "Embedder")
MOST = 8  # that the picture has room for


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


def options() -> dict[str, app.Options]:
    """Those of config.yaml, but that replicas go soon."""
    found = app.deployment_options()
    for name in STAGES:
        found[name]["autoscaling_config"] |= {"downscale_delay_s": 20}
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
        above.axvline(right, color="0.8", zorder=0)
        above.text((left + right) / 2, MOST + 0.3, phase.name, ha="center", fontsize=9)
        ends = Counter(
            int(one.begun + one.seconds - start) for one in answers[phase.name] if one.status == 200
        )
        below.bar(list(ends), list(ends.values()), width=1, align="edge", label=phase.name)
    above.set(ylabel="replicas", yticks=range(MOST + 1), ylim=(0, MOST + 0.8))
    above.legend(loc="center left")
    below.set(xlabel="seconds", ylabel="answers a second", xlim=(0, right))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def table(
    samples: Sequence[Sample], phases: Sequence[Phase], answers: Mapping[str, Sequence[Answer]]
) -> list[str]:
    """Replicas at the end of each phase, and answers in its first and last third."""
    lines = [
        f"![replicas and answers over time](../../docs/{PICTURE})",
        "",
        f"| | {' | '.join(f'{name}, most' for name in STAGES)} | answers/s, first third | last | failed |",
        "|---|" + "---|" * (len(STAGES) + 3),
    ]
    end = 0.0
    for phase in phases:
        begin, end = end, end + phase.seconds
        seen = [sample.replicas for sample in samples if begin <= sample.at < end]
        cells = [str(max(one[name] for one in seen)) for name in STAGES]
        got = sorted(answers[phase.name], key=lambda one: one.begun)
        thirds = [got[: len(got) // 3], got[-len(got) // 3 :]] if got else []
        cells += [f"{Summary.of(third).rate:.1f}" for third in thirds] or ["", ""]
        cells.append(str(sum(one.status not in (200, 503) for one in got)))
        lines.append(f"| {phase.name} | {' | '.join(cells)} |")
    return lines


def main(
    seconds: Annotated[float, typer.Option(help="of each phase")] = 150,
    clients: Annotated[int, typer.Option(help="that do not pause")] = 16,
) -> None:
    """Shift the load, and draw what the stages do."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    chosen = options()
    app.deployment_options = lambda: chosen  # this process has one application
    texts = sentences(400)
    with app.running(ServeConfig(stages=("RETDecoder",)), port=0) as url:
        phases = (
            Phase("at rest", seconds / 6),
            Phase("decoding", seconds, decodes(url, texts)),
            Phase("embedding", seconds, embeds(texts)),
            Phase("at rest again", seconds * 2 / 3),
        )
        samples: list[Sample] = []
        answers: dict[str, list[Answer]] = {}
        start = time.monotonic()
        with sampled(samples, start):
            for phase in phases:
                answers[phase.name] = asyncio.run(played(url, phase, clients))
    draw(samples, phases, answers, start, PICTURES / PICTURE)
    lines = table(samples, phases, answers)
    print("\n".join(lines))
    record("Replicas for a load that moves from stage to stage", "benchmarks.bench_serve_scaling", lines)


if __name__ == "__main__":
    typer.run(main)
