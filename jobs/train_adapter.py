"""`cellular adapter train`: train an adapter from one teacher's embeddings to another's, and back."""

from typing import Annotated, Any

import typer

from jobs.build_options import (
    EmbedderGpus,
    Embedders,
    Format,
    Inputs,
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
    Data,
    Gpu,
    HeldOut,
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

STRATEGIES = "linear, hierarchical, attention or autoencoder. Default: linear."


def main(
    inputs: Inputs = None,
    target: TrainingTarget = None,
    text_column: TextColumn = None,
    format: Format = None,
    source: Annotated[str | None, typer.Option("--from", help="The teacher to adapt. Default: lsa.")] = None,
    teacher: Annotated[
        str | None, typer.Option("--to", help="The teacher whose space is wanted. Default: all-MiniLM-L6-v2.")
    ] = None,
    data: Data = None,
    held_out: HeldOut = None,
    strategy: Annotated[str | None, typer.Option(help=STRATEGIES)] = None,
    width: Annotated[int | None, typer.Option(help="Hidden numbers, or anchors. Default: 128.")] = None,
    contrast: Annotated[
        float | None, typer.Option(help="Weight of telling texts apart, beside the cosine. Default: .1.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs a step. Default: 512.")] = None,
    steps: Steps = None,
    seconds: Seconds = None,
    run_seconds: RunSeconds = None,
    rate: Rate = None,
    seed: Seed = None,
    workers: Workers = None,
    min_workers: MinWorkers = None,
    gpu: Gpu = None,
    embedders: Embedders = None,
    embedder_gpus: EmbedderGpus = None,
    config: SettingsFile = None,
    restart: RestartTraining = False,
    commit_name: CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on raw text that both teachers embed; interrupted, the same command goes on.

    It starts from the ridge in closed form, which needs one pass over the pairs. Runs on the cluster that
    RAY_ADDRESS names, or on this machine. --config FILE sets what has no option here (TrainAdapterConfig).
    """
    settings: dict[str, Any] = {
        "target": target,
        "data_folder": data,
        "data": {
            "corpus": corpus_settings(inputs, text_column, format, None),
            "teacher": {"name": teacher},
            "held_out": held_out,
        },
        "source": {"name": source} if source else None,
        "strategy": strategy,
        "width": width,
        "contrast": {"weight": contrast},
        "optimizer": {"rate": rate},
        "schedule": {"steps": steps, "seconds": seconds} if steps or seconds else None,
        "loop": {"batch_pairs": batch, "seed": seed},
        "workers": {"workers": workers, "min_workers": min_workers, "gpu": gpu},
        "embedding": {"embedders": embedders, "embedder_gpus": embedder_gpus},
    }
    with resumable():
        from cellular.training.adapter_config import TrainAdapterConfig
        from pipelines.train_adapter import run as train

        chosen = TrainAdapterConfig.model_validate(merge(read_settings(config) if config else {}, settings))
        origin = {"command": command_line("adapter train"), "commit": commit_name or commit()}
        report = train(chosen, restart=restart, run_seconds=run_seconds, origin=origin)
        show_fields(report.model_dump(mode="json"), as_json)


if __name__ == "__main__":
    run(main)
