"""`cellular lattice train`: train a lattice from embeddings to embeddings."""

from typing import Annotated, Any

import typer

from jobs.build_options import (
    EmbedderGpus,
    Embedders,
    Format,
    Inputs,
    Teacher,
    TextColumn,
    corpus_settings,
    merge,
    read_settings,
)
from jobs.console import AsJson, run, show_fields
from jobs.origin import command_line, commit
from jobs.resumable import resumable
from jobs.training_options import (
    CommitName,
    Compile,
    Data,
    Gpu,
    Graphs,
    HeldOut,
    MatrixRate,
    MinWorkers,
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

OBJECTIVE = "reconstruct: an embedding from a damaged one. map: its pair's."


def main(
    inputs: Inputs = None,
    target: TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    teacher: Teacher = None,
    data: Data = None,
    held_out: HeldOut = None,
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
    noise: Annotated[float | None, typer.Option(help="Largest length of noise on what is read.")] = None,
    likelihood: Annotated[float | None, typer.Option(help="Weight of the text by a frozen RET.")] = None,
    batch: Annotated[int | None, typer.Option(help="Embeddings a step. Default: 1,024.")] = None,
    steps: Steps = None,
    seconds: Seconds = None,
    run_seconds: RunSeconds = None,
    matrix_rate: MatrixRate = None,
    rate: Rate = None,
    seed: Seed = None,
    workers: Workers = None,
    min_workers: MinWorkers = None,
    compile: Compile = None,
    graphs: Graphs = None,
    gpu: Gpu = None,
    embedders: Embedders = None,
    embedder_gpus: EmbedderGpus = None,
    config: SettingsFile = None,
    restart: RestartTraining = False,
    commit_name: CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train a lattice on raw text; interrupted, it goes on when the same command is run again.

    Runs on the cluster that RAY_ADDRESS names, or on this machine. --config FILE sets what has no option
    here, such as the shape of the lattice (TrainLatticeConfig).
    """
    columns = {
        "group": group_column,
        "order": order_column,
        "source": source_column,
        "target": target_column,
    }
    pairs = columns if any(columns.values()) else None
    settings: dict[str, Any] = {
        "target": target,
        "data_folder": data,
        "data": {
            "corpus": corpus_settings(inputs, text_column, format, None),
            "teacher": {"name": teacher},
            "held_out": held_out,
        },
        "objective": objective or ("map" if pairs else None),
        "pairs": pairs,
        "history": history,
        "model": model,
        "base": base,
        "damage": {"noise": noise} if noise is not None else None,
        "loss": {"likelihood": likelihood},
        "optimizer": {"matrix_rate": matrix_rate, "rate": rate},
        "schedule": {"steps": steps, "seconds": seconds},
        "loop": {"batch": batch, "seed": seed, "compile": compile, "graphs": graphs},
        "workers": {"workers": workers, "min_workers": min_workers, "gpu": gpu},
        "embedding": {"embedders": embedders, "embedder_gpus": embedder_gpus},
    }
    with resumable():
        from cellular.training.lattice_config import TrainLatticeConfig
        from pipelines.train_lattice import run as train

        chosen = TrainLatticeConfig.model_validate(merge(read_settings(config) if config else {}, settings))
        origin = {"command": command_line("lattice train"), "commit": commit_name or commit()}
        report = train(chosen, restart=restart, run_seconds=run_seconds, origin=origin)
        show_fields(report.model_dump(mode="json"), as_json)


if __name__ == "__main__":
    run(main)
