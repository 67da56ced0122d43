"""`cellular text-to-text train`: train the model that needs neither teacher nor bank."""

from typing import Annotated, Any

import typer

from cellular.errors import CellularError
from jobs import training_options as options
from jobs.build_options import Format, Inputs, TextColumn
from jobs.console import AsJson, run
from jobs.resumable import resumable

TASK = (
    "reconstruct, reply (next of dialogue_id by turn) or paraphrase (others of image_id), and how often each "
    "of its pairs is learned: reconstruct=2. May be repeated; others by --config. Default: reconstruct."
)


def main(
    inputs: Inputs = None,
    target: options.TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    task: Annotated[list[str] | None, typer.Option(help=TASK)] = None,
    data: options.Data = None,
    held_out: options.HeldOut = None,
    steps: options.Steps = None,
    seconds: options.Seconds = None,
    run_seconds: options.RunSeconds = None,
    piece_drop: Annotated[
        float | None, typer.Option(help="Share of read pieces hidden. Default: .1.")
    ] = None,
    batch_tokens: options.BatchTokens = None,
    pass_tokens: options.PassTokens = None,
    matrix_rate: options.MatrixRate = None,
    rate: options.Rate = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    min_workers: options.MinWorkers = None,
    compile: options.Compile = None,
    graphs: options.Graphs = None,
    gpu: options.Gpu = None,
    config: options.SettingsFile = None,
    restart: options.RestartTraining = False,
    commit_name: options.CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train text to text on files of texts; interrupted, it goes on when the same command is run again.

    Runs on the cluster that RAY_ADDRESS names, or on this machine.
    """
    given = locals()
    with resumable():
        from cellular.training.text_to_text_config import TrainTextToTextConfig
        from pipelines.train_text_to_text import run as train

        settings = {"data": {"tasks": _tasks(task)}, "piece_drop": piece_drop}
        options.train("text-to-text train", TrainTextToTextConfig, train, given, settings)


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
