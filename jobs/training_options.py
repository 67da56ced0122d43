"""What the commands that train share: their options, the settings that these stand for, their report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.build_options import corpus_settings, merge, read_settings
from jobs.console import show_fields
from jobs.origin import command_line, commit

if TYPE_CHECKING:
    from cellular.training.config import TrainingConfig
    from pipelines.training_run import TrainReport

TrainingTarget = Annotated[
    Path | None, typer.Option("--target", help="Folder of the run; a second call goes on.")
]
Data = Annotated[Path | None, typer.Option(help="Folder of prepared data. Default: TARGET/data.")]
HeldOut = Annotated[float | None, typer.Option(help="Share not trained on. Default: .01.")]
Steps = Annotated[int | None, typer.Option(help="Length of the training, in optimiser steps,")]
Seconds = Annotated[float | None, typer.Option(help="or in seconds.")]
RunSeconds = Annotated[float | None, typer.Option(help="End this run then, with a checkpoint.")]
BatchTokens = Annotated[
    int | None, typer.Option(help="Positions a step. Default: 131,072 on GPUs, else 8,192.")
]
PassTokens = Annotated[int | None, typer.Option(help="Positions a worker's pass holds.")]
MatrixRate = Annotated[float | None, typer.Option(help="Muon's learning rate. Default: .02.")]
Rate = Annotated[float | None, typer.Option(help="AdamW's learning rate. Default: as suits the model.")]
Seed = Annotated[int | None, typer.Option(help="Default: 0.")]
Workers = Annotated[int | None, typer.Option(help="Workers, one a GPU. Default: 1.")]
MinWorkers = Annotated[int | None, typer.Option(help="Go on with so few. Default: all of them.")]
Compile = Annotated[bool | None, typer.Option(help="torch.compile. Default: on a GPU.")]
Graphs = Annotated[bool | None, typer.Option(help="CUDA graphs. Default: on a GPU.")]
Gpu = Annotated[bool | None, typer.Option(help="A GPU each. Default: if there are any.")]
SettingsFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
RestartTraining = Annotated[bool, typer.Option("--restart", help="Discard a training in the target.")]
CommitName = Annotated[
    str | None, typer.Option("--commit", help="To record, where the code is no git checkout.")
]

_GROUPS = {
    "optimizer": ("matrix_rate", "rate"),
    "schedule": ("steps", "seconds"),
    "loop": ("batch_tokens", "pass_tokens", "seed", "compile", "graphs"),
    "workers": ("workers", "min_workers", "gpu"),
    "embedding": ("embedders", "embedder_gpus"),
}


def train(
    command: str,
    config: "type[TrainingConfig]",
    run: "Callable[..., TrainReport]",
    given: Mapping[str, Any],
    settings: dict[str, Any],
) -> None:
    """Train by what a command was given, and print the report.

    Args:
        command: its words after `cellular`.
        config: class of the settings.
        run: trains.
        given: every option by its name; None: not given.
        settings: those that the options of this command alone stand for.
    """
    file = read_settings(given["config"]) if given["config"] else {}
    chosen = config.model_validate(merge(merge(file, _settings(given, config)), settings))
    origin = {"command": command_line(command), "commit": given["commit_name"] or commit()}
    report = run(chosen, restart=given["restart"], run_seconds=given["run_seconds"], origin=origin)
    show_fields(report.model_dump(mode="json"), given["as_json"])


def _settings(given: Mapping[str, Any], config: "type[TrainingConfig]") -> dict[str, Any]:
    """What the options above stand for, as far as a command has them."""
    corpus = corpus_settings(given["inputs"], given["text_column"], given["format"], None)
    data = {"corpus": corpus, "held_out": given["held_out"]}
    if "teacher" in given:
        data["teacher"] = {"name": given["teacher"]}
    groups = {group: {name: given.get(name) for name in names} for group, names in _GROUPS.items()}
    if not config.model_fields["schedule"].is_required() and set(groups["schedule"].values()) == {None}:
        del groups["schedule"]  # the default is one length, and no length is none
    return {"target": given["target"], "data_folder": given["data"], "data": data, **groups}
