"""The HTTP application beside what a user would write: latency when idle, throughput, overload, memory.

    python -m benchmarks.bench_serve             about a quarter of an hour

`soak_serve` is its neighbour: the memory of every replica under mixed load.

Everything runs on this machine, the load included. What is compared takes turns within a run, since a machine
is never as fast as it was; each is a process of its own (serve_servers.py).
"""

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.serve_load import Answer, Summary, closed_loop, decode_requests, open_loop
from benchmarks.serve_servers import PROCESSES, WORKS

RESULTS = Path(__file__).parent / "results" / "serve.md"
CLIENTS = 32  # that wait for their answers: enough to keep every stage busy
FORMS = {
    "": {},
    "throughput": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    "haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1"},
}

app = typer.Typer(pretty_exceptions_enable=False)


@contextmanager
def server(names: Sequence[str], work: str, form: str = "", **settings: object) -> Iterator[dict[str, str]]:
    """The URLs of `process`, of `gathered`, or of applications on one Ray Serve, by their names."""
    command = [sys.executable, "-m", "benchmarks.serve_servers", ",".join(names), work, json.dumps(settings)]
    environment = {"RAY_AUTH_MODE": "disabled", **os.environ, **FORMS[form]}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("http")), "")
        if not line:
            raise RuntimeError(f"{names} did not start: exit code {process.wait()}")
        try:
            yield {name: line.strip() + ("" if name in PROCESSES else f"/{name}") for name in names}
        finally:
            process.stdin.close()


@contextmanager
def servers(names: Sequence[str], work: str) -> Iterator[dict[str, str]]:
    """The URLs of all; `graph+haproxy` is the graph with a form's environment."""
    groups = [[name] for name in names if name in PROCESSES]
    groups += [[name for name in names if name not in PROCESSES and form_of(name) == form] for form in FORMS]
    with ExitStack() as stack:
        urls: dict[str, str] = {}
        for group in filter(None, groups):
            kinds = [name.partition("+")[0] for name in group]
            started = stack.enter_context(server(kinds, work, form_of(group[0])))
            urls |= dict(zip(group, started.values(), strict=True))
        yield urls


def form_of(name: str) -> str:
    """What stands behind the plus."""
    return name.partition("+")[2]


def own_time(work: str) -> float:
    """Milliseconds of the workers alone, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.serve_servers", "own", work]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def in_turns(
    names: Sequence[str], work: str, clients: int, rounds: int, seconds: float
) -> dict[str, Summary]:
    """Closed loops of each; the median of the rounds, by rate."""
    requests = decode_requests(max_length=WORKS[work][1])
    found: dict[str, list[Summary]] = {name: [] for name in names}
    with servers(names, work) as urls:
        for url in urls.values():
            asyncio.run(closed_loop(url, requests, clients, 2))  # compiled, connected, read
        for number in range(rounds):
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                answers = asyncio.run(closed_loop(urls[name], requests, clients, seconds))
                found[name].append(Summary.of(answers))
                print(f"  {work} {clients:3} clients  {name:20} {found[name][-1]}", flush=True)
    return {name: sorted(rounds)[len(rounds) // 2] for name, rounds in found.items()}


def idle_table(work: str, names: Sequence[str], rounds: int, seconds: float) -> list[str]:
    """One client that waits for each answer."""
    own, lines = own_time(work), []
    found = in_turns(names, work, 1, rounds, seconds)
    lines += [
        f"## One request at a time, {work} work",
        "",
        f"The workers alone take {own:.2f} ms a text.",
        "",
        "| | p50, ms | above `process` | without the workers' time, times `noop` | p99, ms |",
        "|---|---|---|---|---|",
    ]
    noop, process = found["noop"].p50, found["process"].p50
    for name, one in found.items():
        alone = one.p50 if name == "noop" else one.p50 - own
        lines.append(
            f"| {name} | {one.p50:.1f} | {one.p50 - process:+.1f} | {alone / noop:.2f} | {one.p99:.1f} |"
        )
    return [*lines, ""]


def saturation_table(names: Sequence[str], rounds: int, seconds: float) -> list[str]:
    """Clients without a pause."""
    found = in_turns(names, "real", CLIENTS, rounds, seconds)
    lines = [
        f"## {CLIENTS} clients that do not pause, real work",
        "",
        "| | requests/s | times `process` | p50, ms | p99, ms | refused | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        cells = (
            f"{one.rate:.0f}",
            f"{one.rate / found['process'].rate:.2f}",
            f"{one.p50:.0f}",
            f"{one.p99:.0f}",
            f"{one.refused}",
            f"{one.failed}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def overload_table(rounds: int, seconds: float) -> list[str]:
    """More clients, and more requests a second, than can be answered."""
    requests = decode_requests(max_length=WORKS["real"][1])
    lines = [
        "## More requests than can be answered, real work, `graph`",
        "",
        "A client that is refused waits as long as it is told; at four times the rate nobody waits.",
        "",
        "| | sent/s | answered/s | p50, ms | p99, ms | refused | refusal p99, ms | failed or hung |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with servers(["graph"], "real") as urls:
        url = urls["graph"]
        asyncio.run(closed_loop(url, requests, CLIENTS, 3))
        for _ in range(rounds):
            for clients in (CLIENTS, 4 * CLIENTS, 16 * CLIENTS):
                answers = asyncio.run(closed_loop(url, requests, clients, seconds))
                lines.append(overload_row(f"{clients} clients", answers, seconds))
            rate = 4 * Summary.of(answers).rate
            answers = asyncio.run(open_loop(url, requests, rate, seconds))
            lines.append(overload_row("4 times the rate", answers, seconds))
            print("\n".join(lines[-4:]), flush=True)
    return [*lines, ""]


def overload_row(name: str, answers: Sequence[Answer], seconds: float) -> str:
    """A line of the table."""
    one = Summary.of(answers)
    return (
        f"| {name} | {len(answers) / seconds:.0f} | {one.rate:.0f} | {one.p50:.0f} | {one.p99:.0f} "
        f"| {one.refused} | {one.refused_p99:.0f} | {one.failed} |"
    )


def gathering_table(rounds: int, seconds: float) -> list[str]:
    """How many rows are joined into a call, and how many calls travel."""
    requests = decode_requests(max_length=WORKS["real"][1])
    lines = [
        "## Joining requests, real work, `graph`",
        "",
        "| rows | calls | requests/s | p50, ms | p99, ms |",
    ]
    lines += ["| rows | calls | requests/s | p50, ms | p99, ms |", "|---|---|---|---|---|"]
    for rows, calls in ((1, 64), (8, 16), (32, 1), (32, 2), (32, 16), (128, 2)):
        with server(["graph"], "real", gathering={"rows": rows, "calls": calls}) as urls:
            url = urls["graph"]
            asyncio.run(closed_loop(url, requests, CLIENTS, 2))
            found = [
                Summary.of(asyncio.run(closed_loop(url, requests, CLIENTS, seconds))) for _ in range(rounds)
            ]
        one = sorted(found)[len(found) // 2]
        lines.append(f"| {rows} | {calls} | {one.rate:.0f} | {one.p50:.0f} | {one.p99:.0f} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def head() -> list[str]:
    """Where and when."""
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    machine = f"{os.cpu_count()} cores of {model or platform.machine()}"
    return [
        "# The HTTP application",
        "",
        f"{date.today()}, {machine}, the load included; `python -m benchmarks.bench_serve`. One",
        "replica of each stage. Of several rounds, in which all take turns, the median.",
        "",
        "- `process`: one FastAPI + uvicorn process with the same workers; `gathered`: with the Gateway,",
        "  which joins requests",
        "- `graph`: the application; `fused`: its stages in one deployment",
        "- `noop`: a deployment that answers at once; `chain`: each request calls two deployments by handles",
        "- `+throughput`, `+haproxy`: RAY_SERVE_THROUGHPUT_OPTIMIZED=1, RAY_SERVE_ENABLE_HA_PROXY=1",
        "",
    ]


@app.command()
def compare(
    rounds: Annotated[int, typer.Option(help="of each measurement")] = 5,
    seconds: Annotated[float, typer.Option(help="of each round")] = 5,
    forms: Annotated[bool, typer.Option(help="also Ray Serve's own faster forms")] = True,
) -> None:
    """Compare with one process, and write results/serve.md."""
    faster = ["graph+throughput", "graph+haproxy", "fused+haproxy"] if forms else []
    lines = head()
    lines += idle_table("light", ["process", "noop", "fused", "graph", "chain", *faster], rounds, seconds)
    lines += idle_table("real", ["process", "noop", "fused", "graph", "chain"], rounds, seconds)
    lines += saturation_table(["process", "gathered", "fused", "graph", *faster[:2]], rounds, seconds)
    lines += overload_table(rounds, 2 * seconds)
    lines += gathering_table(rounds, seconds)
    RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    app()
