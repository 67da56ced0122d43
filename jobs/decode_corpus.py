"""`cellular decode-corpus`: files of embeddings to files of texts, on Ray."""

from pathlib import Path
from typing import Annotated

import typer

from cellular.config import RETPrecision
from jobs.build_options import merge, read_settings
from jobs.console import AsJson, run, show_fields
from jobs.decode import LATTICE, PRECISION
from jobs.resumable import resumable

INPUTS = "Files, folders or globs of .npy, .arrow, .parquet and .jsonl, with a column `embedding`."
TARGET = "Folder of the texts, on a file system that every node sees."
KEEP = "A column of the inputs that goes with the texts; may be repeated."
WORKER_GPUS = "GPUs of each of them. Default: 1 for bf16, hybrid and lattices, if any are free."


def main(
    inputs: Annotated[list[str] | None, typer.Argument(help=INPUTS)] = None,
    target: Annotated[Path | None, typer.Option(help=TARGET)] = None,
    keep: Annotated[list[str] | None, typer.Option(help=KEEP)] = None,
    lattice: Annotated[str | None, typer.Option(help=LATTICE)] = None,
    decoder: Annotated[str | None, typer.Option(help="ret, phrase_bank or hybrid. Default: ret.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Folder of the bank, for phrase_bank and hybrid.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="RET's weights, a name or a folder.")] = None,
    precision: Annotated[RETPrecision | None, typer.Option(help=PRECISION)] = None,
    method: Annotated[str | None, typer.Option(help="As of `decode`. Default: the decoder's.")] = None,
    effort: Annotated[str | None, typer.Option(help="Of hybrid: none, low, medium, high.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what ret and hybrid draw. Default: 0.")] = None,
    workers: Annotated[int | None, typer.Option(help="That hold a decoder. Default: as fit.")] = None,
    worker_gpus: Annotated[float | None, typer.Option(help=WORKER_GPUS)] = None,
    part_rows: Annotated[
        int | None, typer.Option(help="Rows a part, the unit of resume. Default: by size.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of settings (DecodeCorpusConfig).")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard what the target holds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Decode files of embeddings; interrupted, it goes on when the same command is run again.

    Each row becomes one of TARGET/part-*.parquet: its file and row, the text, and the columns that are kept.
    Runs on the cluster that RAY_ADDRESS names, or on this machine.
    """
    settings = {
        "inputs": inputs or None,
        "target": target,
        "keep": keep or None,
        "lattice": lattice,
        "decoder": decoder,
        "bank": bank,
        "checkpoint": checkpoint,
        "precision": precision,
        "method": method,
        "effort": effort,
        "seed": seed,
        "workers": workers,
        "worker_gpus": worker_gpus,
        "part_rows": part_rows,
    }
    with resumable():
        from cellular.config import DecodeCorpusConfig
        from pipelines.decode_corpus import run as decode

        file = read_settings(config) if config else {}
        report = decode(DecodeCorpusConfig.model_validate(merge(file, settings)), restart=restart)
        show_fields(report.model_dump(mode="json"), as_json)


if __name__ == "__main__":
    run(main)
