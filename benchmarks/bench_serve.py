"""The HTTP application beside what a user would write: latency when idle, throughput, overload.

    python -m benchmarks.bench_serve                          about a quarter of an hour
    python -m benchmarks.bench_serve idle saturation          only these parts

`soak_serve` and `bench_serve_scaling` are its neighbours: the memory of every replica under mixed load, and
replicas over time.

Everything runs on this machine, the load included. What is compared takes turns within a run, since a machine
is never as fast as it was; each is a process of its own (serve_servers.py).
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Annotated, NamedTuple

import psutil
import typer

from benchmarks.serve_load import Answer, Summary, closed_loop, decode_requests, open_loop
from benchmarks.serve_report import record
from benchmarks.serve_servers import PROCESSES, WORKS

CLIENTS = 32  # that wait for their answers: enough to keep every stage busy
# Ray runs workers at a niceness of 15: the load and a plain process would have the machine before them.
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
STOP_S = 60  # until a server that was told to stop is killed
FORMS = {
    "": {},
    "throughput": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    "haproxy": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
}


class Server(NamedTuple):
    """Where a contender is, and the process that started all of its processes."""

    url: str
    process: psutil.Process

    def seconds(self) -> float:
        """Of processor time, so far."""
        tree = [self.process, *self.process.children(recursive=True)]
        return sum(sum(_times(one)) for one in tree)


def _times(process: psutil.Process) -> tuple[float, float]:
    try:
        return process.cpu_times()[:2]
    except psutil.Error:  # it ended meanwhile
        return 0.0, 0.0


@contextmanager
def server(
    names: Sequence[str], work: str, form: str = "", **settings: object
) -> Iterator[dict[str, Server]]:
    """`process`, `gathered`, or applications on one Ray Serve, by their names."""
    command = [sys.executable, "-m", "benchmarks.serve_servers", ",".join(names), work, json.dumps(settings)]
    environment = {**SETTINGS, **os.environ, **FORMS[form]}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("http")), "")
        if not line:
            raise RuntimeError(f"{names} did not start: exit code {process.wait()}")
        try:
            url, root = line.strip(), psutil.Process(process.pid)
            yield {name: Server(url if name in PROCESSES else f"{url}/{name}", root) for name in names}
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def servers(names: Sequence[str], work: str) -> Iterator[dict[str, Server]]:
    """All of them; `graph+haproxy` is the graph with a form's environment."""
    groups = [[name] for name in names if name in PROCESSES]
    groups += [[name for name in names if name not in PROCESSES and form_of(name) == form] for form in FORMS]
    with ExitStack() as stack:
        found: dict[str, Server] = {}
        for group in filter(None, groups):
            kinds = [name.partition("+")[0] for name in group]
            started = stack.enter_context(server(kinds, work, form_of(group[0])))
            found |= dict(zip(group, started.values(), strict=True))
        yield found


def form_of(name: str) -> str:
    """What stands behind the plus."""
    return name.partition("+")[2]


def in_form(kind: str, form: str, names: Sequence[str]) -> str:
    """A kind of application in the same form of Ray Serve as another, if it is measured there."""
    name = f"{kind}+{form}" if form else kind
    return name if name in names else kind


def own_time(work: str) -> float:
    """Milliseconds of the workers alone, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.serve_servers", "own", work]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


class Rounds(dict[str, list[Summary]]):
    """What each contender did in each round."""

    def of(self, name: str, field: str) -> float:
        """The median of the rounds."""
        return median(getattr(one, field) for one in self[name])

    def times(self, name: str, other: str, field: str) -> float:
        """The median of the rounds' ratios: both were measured within seconds of each other."""
        return median(
            getattr(one, field) / getattr(base, field)
            for one, base in zip(self[name], self[other], strict=True)
        )


def in_turns(names: Sequence[str], work: str, clients: int, rounds: int, seconds: float) -> Rounds:
    """Closed loops of each, which take turns."""
    requests = decode_requests(max_length=WORKS[work][1])
    found = Rounds({name: [] for name in names})
    with servers(names, work) as started:
        for one in started.values():
            asyncio.run(closed_loop(one.url, requests, clients, 2))  # compiled, connected, read
        for number in range(rounds):
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                before = started[name].seconds()
                answers = asyncio.run(closed_loop(started[name].url, requests, clients, seconds))
                found[name].append(Summary.of(answers, started[name].seconds() - before))
                print(f"  {work} {clients:3} clients  {name:20} {found[name][-1]}", flush=True)
    return found


def idle(work: str, names: Sequence[str], rounds: int, seconds: float) -> list[str]:
    """One client that waits for each answer."""
    before = own_time(work)
    found = in_turns(names, work, 1, rounds, seconds)
    own = min(before, own_time(work))
    lines = [
        f"The workers alone take {own:.2f} ms a text.",
        "",
        "| | p50, ms | above `process` | without workers, above `noop` | / `noop` | `chain` / | p99 | CPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    process = found.of("process", "p50")
    for name in names:
        p50 = found.of(name, "p50")
        noop, chain = (in_form(kind, form_of(name), names) for kind in ("noop", "chain"))
        busy = own * (name != noop)
        cells = (
            f"{p50:.1f}",
            f"{p50 - process:+.1f}",
            f"{p50 - busy - found.of(noop, 'p50'):+.1f}",
            f"{(p50 - busy) / found.of(noop, 'p50'):.2f}",
            f"{found.times(chain, name, 'p50'):.1f}",
            f"{found.of(name, 'p99'):.1f}",
            f"{found.of(name, 'cpu'):.1f}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def saturation(names: Sequence[str], rounds: int, seconds: float) -> list[str]:
    """Clients without a pause."""
    found = in_turns(names, "real", CLIENTS, rounds, seconds)
    lines = [
        "| | requests/s | times `process` | p50, ms | p99, ms | CPU a request, ms | refused | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        cells = (
            f"{found.of(name, 'rate'):.0f}",
            f"{found.times(name, 'process', 'rate'):.2f}",
            f"{found.of(name, 'p50'):.0f}",
            f"{found.of(name, 'p99'):.0f}",
            f"{found.of(name, 'cpu'):.1f}",
            f"{sum(one.refused for one in found[name])}",
            f"{sum(one.failed for one in found[name])}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def overload(form: str, rounds: int, seconds: float) -> list[str]:
    """More clients, and more requests a second, than can be answered."""
    requests = decode_requests(max_length=WORKS["real"][1])
    name = f"graph+{form}" if form else "graph"
    lines = [
        f"`{name}`. Who is refused waits as long as it is told; at so many times the rate nobody waits.",
        "",
        "| | sent/s | answered/s | p50, ms | p99, ms | refused | refusal p99, ms | failed or hung |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with server(["graph"], "real", form) as started:
        url = started["graph"].url
        asyncio.run(closed_loop(url, requests, CLIENTS, 3))
        for _ in range(rounds):
            answers = asyncio.run(closed_loop(url, requests, CLIENTS, seconds))
            rate = Summary.of(answers).rate
            lines.append(overload_row(f"{CLIENTS} clients", answers, seconds))
            answers = asyncio.run(closed_loop(url, requests, 4 * CLIENTS, seconds))
            lines.append(overload_row(f"{4 * CLIENTS} clients", answers, seconds))
            for times in (2, 4):
                answers = asyncio.run(open_loop(url, requests, times * rate, seconds))
                lines.append(overload_row(f"{times} times that rate", answers, seconds))
            print("\n".join(lines[-4:]), flush=True)
    return lines


def overload_row(name: str, answers: Sequence[Answer], seconds: float) -> str:
    """A line of the table."""
    one = Summary.of(answers)
    return (
        f"| {name} | {len(answers) / seconds:.0f} | {one.rate:.0f} | {one.p50:.0f} | {one.p99:.0f} "
        f"| {one.refused} | {one.refused_p99:.0f} | {one.failed} |"
    )


def gathering(rounds: int, seconds: float) -> list[str]:
    """How many rows are joined into a call, and how many calls travel."""
    requests = decode_requests(max_length=WORKS["real"][1])
    lines = ["`graph`.", "", "| rows | calls | requests/s | p50, ms | p99, ms |", "|---|---|---|---|---|"]
    for rows, calls in ((1, 64), (8, 16), (32, 1), (32, 16), (128, 2)):
        with server(["graph"], "real", gathering={"rows": rows, "calls": calls}) as started:
            url = started["graph"].url
            asyncio.run(closed_loop(url, requests, CLIENTS, 2))
            found = [
                Summary.of(asyncio.run(closed_loop(url, requests, CLIENTS, seconds))) for _ in range(rounds)
            ]
        one = sorted(found)[len(found) // 2]
        lines.append(f"| {rows} | {calls} | {one.rate:.0f} | {one.p50:.0f} | {one.p99:.0f} |")
        print(lines[-1], flush=True)
    return lines


PLAIN = ("process", "noop", "fused", "graph", "chain")
FASTER = ("graph+throughput", "graph+haproxy")
Part = Callable[[int, float], list[str]]
PARTS: dict[str, tuple[str, Part]] = {
    "light": (
        "One request at a time, stages that take next to no time",
        lambda rounds, seconds: idle("light", PLAIN, rounds, seconds),
    ),
    "forms": (
        "The same in Ray Serve's own faster forms",
        lambda rounds, seconds: idle(
            "light", [*PLAIN, *FASTER, "noop+haproxy", "fused+haproxy", "chain+haproxy"], rounds, seconds
        ),
    ),
    "idle": (
        "One request at a time, the default teacher and RET, 64 pieces",
        lambda rounds, seconds: idle("real", [*PLAIN, "graph+haproxy", "fused+haproxy"], rounds, seconds),
    ),
    "saturation": (
        f"{CLIENTS} clients that do not pause, the default teacher and RET, 64 pieces",
        lambda rounds, seconds: saturation(
            ["process", "gathered", "fused", "graph", "scaled"], rounds, seconds
        ),
    ),
    "saturated-forms": (
        "The same clients, and Ray Serve's own faster forms",
        lambda rounds, seconds: saturation(
            ["process", "graph", *FASTER, "scaled+haproxy", "fused+haproxy"], rounds, seconds
        ),
    ),
    "overload": (
        "More requests than can be answered",
        lambda rounds, seconds: overload("", min(rounds, 3), 2 * seconds),
    ),
    "overload-haproxy": (
        "The same behind HAProxy",
        lambda rounds, seconds: overload("haproxy", min(rounds, 3), 2 * seconds),
    ),
    "gathering": (f"Joining the requests of {CLIENTS} clients", gathering),
}


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(PARTS)}; all")] = None,
    rounds: Annotated[int, typer.Option(help="of each measurement")] = 5,
    seconds: Annotated[float, typer.Option(help="of each round")] = 4,
) -> None:
    """Compare, and write the sections of results/serve.md."""
    for part in parts or PARTS:
        title, measure = PARTS[part]
        lines = measure(rounds, seconds)
        print("\n".join(lines), flush=True)
        record(title, f"benchmarks.bench_serve {part}", lines)


if __name__ == "__main__":
    typer.run(main)
