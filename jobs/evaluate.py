"""`cellular evaluate`: decoders beside baselines, on texts that they have not seen."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show

DECODER = "ret, hybrid, phrase_bank, nearest, constant, a checkpoint's or a bank's folder; may be repeated."
DATA = "Folder of NAME_train.parquet, NAME_test.parquet, … By default CELLULAR_DATA."


def main(
    decoder: Annotated[list[str], typer.Option(help=DECODER)] = ["ret"],  # noqa: B006 - typer copies it
    data: Annotated[Path | None, typer.Option(help=DATA)] = None,
    sets: Annotated[str, typer.Option(help="Test sets, as in captions,dialogue. By default all.")] = "",
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    limit: Annotated[int, typer.Option(min=1, help="Texts of a set, at most.")] = 1000,
    bank: Annotated[Path | None, typer.Option(help="A bank of the training texts, to search.")] = None,
    training_bank: Annotated[
        bool, typer.Option("--training-bank", help="Build that bank from the train files, once.")
    ] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="RET's weights. By default those shipped.")] = None,
    engine: Annotated[str, typer.Option(help="What runs RET. By default the fastest there is.")] = "auto",
    teacher: Annotated[str, typer.Option(help="A name, a folder or a hub name.")] = "all-MiniLM-L6-v2",
    precision: Annotated[str, typer.Option(help="The teacher's: auto, fp32 or bf16.")] = "auto",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of a decoder that samples.")] = 3,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for it.")] = Path("evaluation"),
    as_json: AsJson = False,
) -> None:
    """Score decoders on held-out texts: a table here, and a page, JSON and every answer in a folder."""
    from cellular.config import EvaluationConfig
    from pipelines import evaluate
    from pipelines.evaluation_report import cells, write_evaluation

    config = EvaluationConfig.model_validate(
        {
            "decoders": decoder,
            "data": data,
            "split": split,
            "sets": tuple(name.strip() for name in sets.split(",") if name.strip()),
            "limit": limit,
            "bank": bank,
            "training_bank": training_bank,
            "checkpoint": checkpoint,
            "engine": engine,
            "teacher": {"name": teacher, "precision": precision},
            "seeds": tuple(range(seeds)),
        }
    )
    evaluation = evaluate.run(config)
    report = evaluation.report
    if as_json:
        show([row.model_dump() for row in report.rows], as_json)
    else:
        show([cells(row) for row in report.rows], title=f"{report.split}, teacher {report.teacher}")
    for line in [*report.notes, *map(" ".join, report.signatures.items())]:
        print(line, file=sys.stderr)
    for path in write_evaluation(evaluation, output):
        print(path, file=sys.stderr)


if __name__ == "__main__":
    run(main)
