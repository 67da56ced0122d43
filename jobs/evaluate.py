"""`cellular evaluate`: decoders beside baselines, on texts that they have not seen."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.console import AsJson, run, show

DECODER = (
    "ret, hybrid, phrase_bank, nearest, constant, a checkpoint's or a bank's folder, a pipeline's YAML file; "
    "may be repeated."
)
DAMAGE = "What happens to the embeddings first: noise 1, half the numbers, 2 bits, …; may be repeated."
LATTICE = "Decode what this lattice makes of the embeddings as well: a name or a folder; may be repeated."
MODE = "A whole pipeline as well: direct, text_to_text or hybrid; may be repeated."
DATA = "Folder of NAME_train.parquet, NAME_test.parquet, … By default CELLULAR_DATA."


def main(
    decoder: Annotated[list[str], typer.Option(help=DECODER)] = ["ret"],  # noqa: B006 - typer copies it
    mode: Annotated[list[str] | None, typer.Option(help=MODE)] = None,
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
    damage: Annotated[list[str] | None, typer.Option(help=DAMAGE)] = None,
    lattice: Annotated[list[str] | None, typer.Option(help=LATTICE)] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of a decoder that samples.")] = 3,
    task: Annotated[
        str | None, typer.Option(help="map or denoise: embeddings to embeddings, instead of to texts.")
    ] = None,
    model: Annotated[
        list[str], typer.Option(help="For a task: a checkpoint's name or folder; may be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    fitted: Annotated[int, typer.Option(help="For a task: texts that baselines are fitted on.")] = 20_000,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for it.")] = Path("evaluation"),
    as_json: AsJson = False,
) -> None:
    """Score decoders, or lattices, on held-out texts: a table here, and a page and JSON in a folder."""
    texts: dict[str, Any] = {
        "data": data,
        "split": split,
        "sets": tuple(name.strip() for name in sets.split(",") if name.strip()),
        "limit": limit,
        "teacher": {"name": teacher, "precision": precision},
    }
    if task:
        _evaluate_mapping({**texts, "task": task, "checkpoints": model, "fitted": fitted}, output, as_json)
        return
    from cellular.pipeline.loading import named_pipeline

    decoders = {
        "decoders": (*decoder, *map(named_pipeline, mode or ())),
        "bank": bank,
        "training_bank": training_bank,
        "checkpoint": checkpoint,
        "engine": engine,
        "damages": tuple(damage or ("none",)),
        "lattices": tuple(lattice or ()),
        "seeds": tuple(range(seeds)),
    }
    _evaluate_decoders({**texts, **decoders}, output, as_json)


def _evaluate_decoders(settings: dict[str, Any], output: Path, as_json: bool) -> None:
    from cellular.config import EvaluationConfig
    from pipelines import evaluate
    from pipelines.evaluation_report import cells, write_evaluation

    evaluation = evaluate.run(EvaluationConfig.model_validate(settings))
    report = evaluation.report
    rows = [row.model_dump() if as_json else cells(row) for row in report.rows]
    show(rows, as_json, title=f"{report.split}, teacher {report.teacher}")
    for line in [*report.notes, *map(" ".join, report.signatures.items())]:
        print(line, file=sys.stderr)
    for path in write_evaluation(evaluation, output):
        print(path, file=sys.stderr)


def _evaluate_mapping(settings: dict[str, Any], output: Path, as_json: bool) -> None:
    from cellular.config import MappingConfig
    from pipelines import evaluate_mapping
    from pipelines.mapping_report import cells, write_report

    report = evaluate_mapping.run(MappingConfig.model_validate(settings))
    rows = [row.model_dump() if as_json else cells(row) for row in report.rows]
    show(rows, as_json, title=f"{report.task}, {report.split}, teacher {report.teacher}")
    for path in write_report(report, output):
        print(path, file=sys.stderr)


if __name__ == "__main__":
    run(main)
