"""`cellular text-to-text train`: train the model that needs neither teacher nor bank."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cellular.errors import CellularError
from jobs.build_options import Format, Inputs, TextColumn, corpus_settings, merge, read_settings
from jobs.console import AsJson, run, show_fields
from jobs.origin import command_line, commit
from jobs.resumable import resumable

TASK = (
    "reconstruct, reply (next of dialogue_id by turn) or paraphrase (others of image_id), and how often each "
    "of its pairs is learned: reconstruct=2. May be repeated; others by --config. Default: reconstruct."
)


def main(
    inputs: Inputs = None,
    target: Annotated[Path | None, typer.Option(help="Folder of the run; a second call goes on.")] = None,
    text_column: TextColumn = None,
    format: Format = None,
    task: Annotated[list[str] | None, typer.Option(help=TASK)] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of prepared pairs. Default: TARGET/data.")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of texts not trained on. Default: .01.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the training, in optimiser steps,")] = None,
    seconds: Annotated[float | None, typer.Option(help="or in seconds.")] = None,
    run_seconds: Annotated[float | None, typer.Option(help="End this run then, with a checkpoint.")] = None,
    piece_drop: Annotated[
        float | None, typer.Option(help="Share of read pieces hidden. Default: .1.")
    ] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Positions a step. Default: 131,072.")] = None,
    pass_tokens: Annotated[int | None, typer.Option(help="Positions a worker's pass holds.")] = None,
    matrix_rate: Annotated[float | None, typer.Option(help="Muon's learning rate. Default: .02.")] = None,
    rate: Annotated[float | None, typer.Option(help="AdamW's learning rate. Default: .003.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers, one a GPU. Default: 1.")] = None,
    min_workers: Annotated[int | None, typer.Option(help="Go on with so few. Default: all of them.")] = None,
    compile: Annotated[bool | None, typer.Option(help="torch.compile. Default: on a GPU.")] = None,
    graphs: Annotated[bool | None, typer.Option(help="CUDA graphs. Default: on a GPU.")] = None,
    gpu: Annotated[bool | None, typer.Option(help="A GPU each. Default: if there are any.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings (TrainTextToTextConfig).")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard a training in the target.")] = False,
    commit_name: Annotated[
        str | None, typer.Option("--commit", help="To record, where the code is no git checkout.")
    ] = None,
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
