"""Options that the commands which train have in common."""

from pathlib import Path
from typing import Annotated

import typer

TrainingTarget = Annotated[
    Path | None, typer.Option("--target", help="Folder of the run; a second call goes on.")
]
Data = Annotated[Path | None, typer.Option(help="Folder of prepared data. Default: TARGET/data.")]
HeldOut = Annotated[float | None, typer.Option(help="Share not trained on. Default: .01.")]
Steps = Annotated[int | None, typer.Option(help="Length of the training, in optimiser steps,")]
Seconds = Annotated[float | None, typer.Option(help="or in seconds.")]
RunSeconds = Annotated[float | None, typer.Option(help="End this run then, with a checkpoint.")]
BatchTokens = Annotated[int | None, typer.Option(help="Positions a step. Default: 131,072.")]
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
