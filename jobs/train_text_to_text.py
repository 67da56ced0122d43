"""`cellular text-to-text train`: train the model that needs neither teacher nor bank."""

from typing import Annotated, Any

import typer

from cellular.errors import CellularError
from jobs.build_options import Format, Inputs, TextColumn, corpus_settings, merge, read_settings
from jobs.console import AsJson, run, show_fields
from jobs.origin import command_line, commit
from jobs.resumable import resumable
from jobs.training_options import (
    BatchTokens,
    CommitName,
    Compile,
    Data,
    Gpu,
    Graphs,
    HeldOut,
    MatrixRate,
    MinWorkers,
    PassTokens,
    Rate,
    RestartTraining,
    RunSeconds,
    Seconds,
    Seed,
    SettingsFile,
    Steps,
    TrainingTarget,
    Workers,
)

TASK = (
    "reconstruct, reply (next of dialogue_id by turn) or paraphrase (others of image_id), and how often each "
    "of its pairs is learned: reconstruct=2. May be repeated; others by --config. Default: reconstruct."
)


def main(
    inputs: Inputs = None,
    target: TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    task: Annotated[list[str] | None, typer.Option(help=TASK)] = None,
    data: Data = None,
    held_out: HeldOut = None,
    steps: Steps = None,
    seconds: Seconds = None,
    run_seconds: RunSeconds = None,
    piece_drop: Annotated[
        float | None, typer.Option(help="Share of read pieces hidden. Default: .1.")
    ] = None,
    batch_tokens: BatchTokens = None,
    pass_tokens: PassTokens = None,
    matrix_rate: MatrixRate = None,
    rate: Rate = None,
    seed: Seed = None,
    workers: Workers = None,
    min_workers: MinWorkers = None,
    compile: Compile = None,
    graphs: Graphs = None,
    gpu: Gpu = None,
    config: SettingsFile = None,
    restart: RestartTraining = False,
    commit_name: CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train text to text on files of texts; interrupted, it goes on when the same command is run again.

    Runs on the cluster that RAY_ADDRESS names, or on this machine.
    """
    with resumable():
        from cellular.training.text_to_text_config import TrainTextToTextConfig
        from pipelines.train_text_to_text import run as train

        settings: dict[str, Any] = {
            "target": target,
            "data_folder": data,
            "data": {
                "corpus": corpus_settings(inputs, text_column, format, None),
                "tasks": _tasks(task),
                "held_out": held_out,
            },
            "piece_drop": piece_drop,
            "optimizer": {"matrix_rate": matrix_rate, "rate": rate},
            "schedule": {"steps": steps, "seconds": seconds},
            "loop": {
                "batch_tokens": batch_tokens,
                "pass_tokens": pass_tokens,
                "seed": seed,
                "compile": compile,
                "graphs": graphs,
            },
            "workers": {"workers": workers, "min_workers": min_workers, "gpu": gpu},
        }
        chosen = TrainTextToTextConfig.model_validate(
            merge(read_settings(config) if config else {}, settings)
        )
        origin = {"command": command_line("text-to-text train"), "commit": commit_name or commit()}
        report = train(chosen, restart=restart, run_seconds=run_seconds, origin=origin)
        show_fields(report.model_dump(mode="json"), as_json)


def _tasks(chosen: list[str] | None) -> dict[str, Any] | None:
    """Settings of tasks by their names and weights."""
    from cellular.training.text_to_text_config import TASKS

    settings = {}
    for name, _, weight in (text.partition("=") for text in chosen or ()):
        if name not in TASKS or not (weight or "1").isdecimal():
            raise CellularError(
                f"no task {name}={weight}: take {', '.join(TASKS)}, and a number as its weight"
            )
        settings[name] = TASKS[name].model_dump() | {"weight": int(weight or 1)}
    return settings or None


if __name__ == "__main__":
    run(main)
