"""`cellular ret train`: train or fine-tune the decoder of 722,944 parameters."""

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


def main(
    inputs: Inputs = None,
    target: TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    teacher: Teacher = None,
    data: Data = None,
    held_out: HeldOut = None,
    steps: Steps = None,
    seconds: Seconds = None,
    run_seconds: RunSeconds = None,
    base: Annotated[str | None, typer.Option("--from", help="Checkpoint to fine-tune.")] = None,
    only: Annotated[str | None, typer.Option(help="projection: train it alone, for another teacher.")] = None,
    applications: Annotated[int | None, typer.Option(help="Of the layer. Default: 8.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, int8 or int4, felt in training.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Share of weights pruned. Default: 0.")] = None,
    noise: Annotated[float | None, typer.Option(help="Largest length of noise on an embedding.")] = None,
    piece_drop: Annotated[float | None, typer.Option(help="Share of input pieces hidden.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Learn from so many own texts of each embedding, judged by the teacher."),
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
    fused: Annotated[bool | None, typer.Option(help="Our own kernels. Default: if they run.")] = None,
    gpu: Gpu = None,
    embedders: Embedders = None,
    embedder_gpus: EmbedderGpus = None,
    config: SettingsFile = None,
    restart: RestartTraining = False,
    commit_name: CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train a decoder on raw text; interrupted, it goes on when the same command is run again.

    Runs on the cluster that RAY_ADDRESS names, or on this machine.
    """
    settings: dict[str, Any] = {
        "target": target,
        "data_folder": data,
        "data": {
            "corpus": corpus_settings(inputs, text_column, format, None),
            "teacher": {"name": teacher},
            "held_out": held_out,
        },
        "base": base,
        "only": only,
        "applications": applications,
        "precision": precision,
        "sparsity": sparsity,
        "variation": {"embedding_noise": noise, "piece_drop": piece_drop},
        "reward": {"samples": samples} if samples else None,
        "optimizer": {"matrix_rate": matrix_rate, "rate": rate},
        "schedule": {"steps": steps, "seconds": seconds},
        "loop": {
            "batch_tokens": batch_tokens,
            "pass_tokens": pass_tokens,
            "seed": seed,
            "compile": compile,
            "graphs": graphs,
            "fused": fused,
        },
        "workers": {"workers": workers, "min_workers": min_workers, "gpu": gpu},
        "embedding": {"embedders": embedders, "embedder_gpus": embedder_gpus},
    }
    with resumable():
        from cellular.training.config import TrainRETConfig
        from pipelines.train_ret import run as train

        chosen = TrainRETConfig.model_validate(merge(read_settings(config) if config else {}, settings))
        origin = {"command": command_line("ret train"), "commit": commit_name or commit()}
        report = train(chosen, restart=restart, run_seconds=run_seconds, origin=origin)
        show_fields(report.model_dump(mode="json"), as_json)


if __name__ == "__main__":
    run(main)
