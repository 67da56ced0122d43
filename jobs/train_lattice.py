"""`cellular lattice train`: train a lattice from embeddings to embeddings."""

from typing import Annotated

import typer

from jobs import training_options as options
from jobs.build_options import EmbedderGpus, Embedders, Format, Inputs, Teacher, TextColumn
from jobs.console import AsJson, run
from jobs.resumable import resumable

OBJECTIVE = "reconstruct: an embedding from a damaged one. map: its pair's."


def main(
    inputs: Inputs = None,
    target: options.TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    teacher: Teacher = None,
    data: options.Data = None,
    held_out: options.HeldOut = None,
    objective: Annotated[str | None, typer.Option(help=f"{OBJECTIVE} Default: reconstruct.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="For map: rows of one value in it belong together.")
    ] = None,
    order_column: Annotated[
        str | None, typer.Option(help="A row of a group leads to the next. Default: to any other.")
    ] = None,
    source_column: Annotated[str | None, typer.Option(help="Instead of groups: texts to read,")] = None,
    target_column: Annotated[str | None, typer.Option(help="and those that are wanted.")] = None,
    history: Annotated[int | None, typer.Option(help="Earlier texts that are read too. Default: 0.")] = None,
    model: Annotated[str | None, typer.Option(help="lattice, or mlp of as many parameters.")] = None,
    base: Annotated[str | None, typer.Option("--from", help="Checkpoint to start from.")] = None,
    guide: Annotated[
        list[str] | None,
        typer.Option(
            help="Trained lattice or MLP whose output is learned too, by loss.soft. May be repeated."
        ),
    ] = None,
    noise: Annotated[float | None, typer.Option(help="Largest length of noise on what is read.")] = None,
    likelihood: Annotated[float | None, typer.Option(help="Weight of the text by a frozen RET.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Embeddings a step. Default: 1,024, of a lattice without a GPU 128.")
    ] = None,
    steps: options.Steps = None,
    seconds: options.Seconds = None,
    run_seconds: options.RunSeconds = None,
    matrix_rate: options.MatrixRate = None,
    rate: options.Rate = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    min_workers: options.MinWorkers = None,
    compile: options.Compile = None,
    graphs: options.Graphs = None,
    gpu: options.Gpu = None,
    embedders: Embedders = None,
    embedder_gpus: EmbedderGpus = None,
    config: options.SettingsFile = None,
    restart: options.RestartTraining = False,
    commit_name: options.CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train a lattice on raw text; interrupted, it goes on when the same command is run again.

    Runs on the cluster that RAY_ADDRESS names, or on this machine. --config FILE sets what has no option
    here, such as the shape of the lattice (TrainLatticeConfig).
    """
    given = locals()
    columns = {
        "group": group_column,
        "order": order_column,
        "source": source_column,
        "target": target_column,
    }
    pairs = columns if any(columns.values()) else None
    settings = {
        "objective": objective or ("map" if pairs else None),
        "pairs": pairs,
        "history": history,
        "model": model,
        "base": base,
        "guides": guide or None,
        "damage": {"noise": noise} if noise is not None else None,
        "loss": {"likelihood": likelihood},
        "loop": {"batch": batch},
    }
    with resumable():
        from cellular.training.lattice_config import TrainLatticeConfig
        from pipelines.train_lattice import run as train

        options.train("lattice train", TrainLatticeConfig, train, given, settings)


if __name__ == "__main__":
    run(main)
