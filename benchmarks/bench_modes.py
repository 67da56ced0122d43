"""Is tokenization needed? The direct mode, which reads an embedding, beside text to text, which reads pieces.

    python -m benchmarks.bench_modes [--data FOLDER] [--bank BANK] [--limit N] [--report FILE] [PIPELINE ...]

PIPELINE is a name that `load_config` knows, or a YAML file. Every pipeline answers the same held-out texts
with the same text again, on the protocol of `jobs.evaluate`: quality, and milliseconds from a text to its
answer, the teacher's time included where the mode has one. Memory is the peak of a fresh process that loads
the pipeline and answers a batch of 64, less what the same process takes with the libraries alone.
"""

import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.memory import peak_mib
from cellular.config import EvaluationConfig
from cellular.pipeline import FlexibleCellularPipeline
from pipelines import evaluate
from pipelines.evaluation_report import Row

PIPELINES = ["direct_embedding_pipeline", "hybrid_embedding_pipeline", "text_to_text_pipeline"]
METRICS = {"bleu": 1, "f1": 3, "exact_match": 3, "cosine": 3}
TEXTS = [f"Number {number}: two dogs run along the beach behind a red ball." for number in range(64)]


def load_and_answer(pipeline: str) -> None:
    """What a fresh process does: its memory with libraries alone and with the pipeline, and parameters."""
    import faiss  # noqa: F401
    import torch  # noqa: F401

    before = peak_mib()
    opened = FlexibleCellularPipeline(pipeline)
    opened.generate(TEXTS)
    print(json.dumps({"libraries": before, "peak": peak_mib(), "parameters": opened.parameters()["all"]}))


def measure(pipeline: str) -> dict[str, float]:
    """Memory and parameters, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_modes", "--alone", pipeline]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return figures


def line(row: Row, memory: dict[str, float]) -> str:
    """A row of Markdown."""
    scores = [f"{row.scores[name].mean:.{digits}f}" for name, digits in METRICS.items()]
    times = [f"{row.ms_batch_1:.1f}", f"{row.ms_batch_64:.2f}"]
    size = [f"{memory['parameters'] / 1e6:.2f} M", f"{memory['peak'] - memory['libraries']:.0f}"]
    return f"| {' | '.join([row.set, row.decoder, *scores, *size, *times])} |"


def report(rows: list[Row], memories: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    header = ["set", "pipeline", "BLEU", "F1", "EM", "cosine", "parameters", "MiB", "ms alone", "ms of 64"]
    return "\n".join(
        [
            f"{date.today()}, {platform.machine()}\n",
            f"| {' | '.join(header)} |",
            f"|{'---|' * len(header)}",
            *(line(row, memories[row.decoder]) for row in rows if row.decoder in memories),
        ]
    )


def main(
    pipelines: Annotated[list[str], typer.Argument()] = PIPELINES,
    data: Annotated[Path | None, typer.Option(help="Folder of train and test files.")] = None,
    bank: Annotated[Path | None, typer.Option(help="A bank of the training texts, to leave its out.")] = None,
    limit: Annotated[int, typer.Option(help="Texts of a set, at most.")] = 1000,
    to: Annotated[Path | None, typer.Option("--report", help="Markdown file to write.")] = None,
    alone: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Measure and print."""
    if alone:
        load_and_answer(pipelines[0])
        return
    config = EvaluationConfig(decoders=tuple(pipelines), data=data, bank=bank, limit=limit)
    rows = evaluate.run(config).report.rows
    named = [row.decoder for row in rows if row.decoder not in evaluate.BASELINES]
    memories = dict(zip(dict.fromkeys(named), map(measure, pipelines), strict=False))
    text = report(rows, memories)
    print(text)
    if to:
        to.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
