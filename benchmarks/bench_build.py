"""How long a build takes, and what its driver needs: its peak memory must not grow with the corpus.

Each size is built in a process of its own, on a local Ray, with the HashTeacher: the pipeline is measured,
not a model.
"""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.memory import peak_mib

SIZES = (10_000, 100_000, 1_000_000)
RESULTS = Path(__file__).parent / "results" / "build.md"
STAGES = ("segment", "deduplicate", "embed", "train", "index", "publish")


def write_corpus(path: Path, phrases: int) -> None:
    """Sentences of 4 to 16 made-up words, frequent and rare, eight to a line."""
    draw = random.Random(phrases)
    words = ["".join(draw.choices("abcdefghilmnoprstuvw", k=draw.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    with path.open("w") as file:
        for number in range(phrases):
            text = " ".join(draw.choices(words, weights, k=draw.randint(4, 16))).capitalize()
            file.write(f"{text}." + ("\n" if number % 8 == 7 else " "))


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def measure(corpus: str, target: str) -> None:
    """Build in this process and print what it took as JSON; `table` runs this for each size."""
    from cellular.config import BuildConfig, CorpusConfig, TeacherConfig
    from pipelines.build_phrase_bank import run

    config = BuildConfig(
        corpus=CorpusConfig(inputs=(corpus,)), target=Path(target), teacher=TeacherConfig(name="hash")
    )
    start = time.perf_counter()
    report = run(config)
    seconds = time.perf_counter() - start
    print(json.dumps({"total": seconds, "peak": peak_mib(), **report.model_dump(mode="json")}))


def build(phrases: int) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        write_corpus(corpus, phrases)
        command = [sys.executable, "-m", "benchmarks.bench_build", "measure", str(corpus), f"{folder}/bank"]
        environment = {"RAY_AUTH_MODE": "disabled", **os.environ}
        output = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, env=environment, text=True
        ).stdout
        megabytes = corpus.stat().st_size / 1e6
    result = json.loads(output)
    stages = " | ".join(f"{result['seconds'].get(stage, 0):.1f}" for stage in STAGES)
    cells = f"{result['phrases']:,} | {megabytes:.0f} | {result['peak']:.0f} | {result['total']:.1f}"
    return f"| {cells} | {stages} |"


@app.command()
def table(sizes: Annotated[list[int] | None, typer.Argument(help="numbers of phrases")] = None) -> None:
    """Measure every size and write benchmarks/results/build.md."""
    header = ["phrases", "corpus MB", "driver's peak MB", "total s", *STAGES]
    lines = [
        "# Building a phrase bank",
        "",
        f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        "HashTeacher (256-d). The total includes starting and stopping Ray.",
        "",
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
    ]
    for size in sizes or SIZES:
        lines.append(build(size))
        print(lines[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    app()
