"""`cellular adapter train`: train an adapter from one teacher's embeddings to another's, and back."""

from typing import Annotated

import typer

from jobs import training_options as options
from jobs.build_options import EmbedderGpus, Embedders, Format, Inputs, TextColumn
from jobs.console import AsJson, run
from jobs.resumable import resumable

STRATEGIES = "linear, hierarchical, attention or autoencoder. Default: linear."


def main(
    inputs: Inputs = None,
    target: options.TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    source: Annotated[str | None, typer.Option("--from", help="The teacher to adapt. Default: lsa.")] = None,
    teacher: Annotated[
        str | None, typer.Option("--to", help="The teacher whose space is wanted. Default: all-MiniLM-L6-v2.")
    ] = None,
    data: options.Data = None,
    held_out: options.HeldOut = None,
    strategy: Annotated[str | None, typer.Option(help=STRATEGIES)] = None,
    width: Annotated[int | None, typer.Option(help="Hidden numbers, or anchors. Default: 128.")] = None,
    contrast: Annotated[
        float | None, typer.Option(help="Weight of telling texts apart, beside the cosine. Default: .1.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs a step. Default: 512.")] = None,
    steps: options.Steps = None,
    seconds: options.Seconds = None,
    run_seconds: options.RunSeconds = None,
    rate: options.Rate = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    min_workers: options.MinWorkers = None,
    gpu: options.Gpu = None,
    embedders: Embedders = None,
    embedder_gpus: EmbedderGpus = None,
    config: options.SettingsFile = None,
    restart: options.RestartTraining = False,
    commit_name: options.CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on raw text that both teachers embed; interrupted, the same command goes on.

    It starts from the ridge in closed form, which needs one pass over the pairs. Runs on the cluster that
    RAY_ADDRESS names, or on this machine. --config FILE sets what has no option here (TrainAdapterConfig).
    """
    given = locals()
    settings = {
        "source": {"name": source} if source else None,
        "strategy": strategy,
        "width": width,
        "contrast": {"weight": contrast},
        "loop": {"batch_pairs": batch},
    }
    with resumable():
        from cellular.training.adapter_config import TrainAdapterConfig
        from pipelines.train_adapter import run as train

        options.train("adapter train", TrainAdapterConfig, train, given, settings)


if __name__ == "__main__":
    run(main)
