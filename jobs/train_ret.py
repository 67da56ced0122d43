"""`cellular ret train`: train or fine-tune the decoder of 722,944 parameters."""

from typing import Annotated

import typer

from jobs import training_options as options
from jobs.build_options import EmbedderGpus, Embedders, Format, Inputs, Teacher, TextColumn
from jobs.console import AsJson, run
from jobs.resumable import resumable


def main(
    inputs: Inputs = None,
    target: options.TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    teacher: Teacher = None,
    data: options.Data = None,
    held_out: options.HeldOut = None,
    steps: options.Steps = None,
    seconds: options.Seconds = None,
    run_seconds: options.RunSeconds = None,
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
    batch_tokens: options.BatchTokens = None,
    pass_tokens: options.PassTokens = None,
    matrix_rate: options.MatrixRate = None,
    rate: options.Rate = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    min_workers: options.MinWorkers = None,
    compile: options.Compile = None,
    graphs: options.Graphs = None,
    fused: Annotated[bool | None, typer.Option(help="Our own kernels. Default: if they run.")] = None,
    gpu: options.Gpu = None,
    embedders: Embedders = None,
    embedder_gpus: EmbedderGpus = None,
    config: options.SettingsFile = None,
    restart: options.RestartTraining = False,
    commit_name: options.CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train a decoder on raw text; interrupted, it goes on when the same command is run again.

    Runs on the cluster that RAY_ADDRESS names, or on this machine.
    """
    given = locals()
    settings = {
        "base": base,
        "only": only,
        "applications": applications,
        "precision": precision,
        "sparsity": sparsity,
        "variation": {"embedding_noise": noise, "piece_drop": piece_drop},
        "reward": {"samples": samples} if samples else None,
        "loop": {"fused": fused},
    }
    with resumable():
        from cellular.training.config import TrainRETConfig
        from pipelines.train_ret import run as train

        options.train("ret train", TrainRETConfig, train, given, settings)


if __name__ == "__main__":
    run(main)
