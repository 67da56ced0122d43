"""What the commands that build and extend a bank share: their options, their settings file, their report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from cellular.errors import CellularError
from jobs.console import show_fields
from jobs.resumable import resumable

if TYPE_CHECKING:
    from pipelines.build_phrase_bank import BuildReport

Inputs = Annotated[list[str] | None, typer.Argument(help="Files, folders or globs; local paths or s3://.")]
Target = Annotated[
    Path | None, typer.Option(help="Folder of the bank, on a file system that every node sees.")
]
TextColumn = Annotated[str | None, typer.Option(help="Column or key that holds the text. Default: text.")]
Format = Annotated[
    str | None, typer.Option(help="parquet, jsonl, csv or text. Default: auto, by the file names.")
]
TextRecords = Annotated[
    str | None, typer.Option(help="A record of plain text: line or paragraph. Default: line.")
]
Teacher = Annotated[
    str | None, typer.Option(help="A name, a folder or a hub name. Default: all-MiniLM-L6-v2.")
]
Precision = Annotated[str | None, typer.Option(help="auto, fp32, bf16x2, bf16 or int8. Default: auto.")]
Embedders = Annotated[int | None, typer.Option(help="Workers that hold the teacher. Default: as fit.")]
EmbedderGpus = Annotated[float | None, typer.Option(help="GPUs of each. Default: 1, if any are free.")]
Tasks = Annotated[int | None, typer.Option(help="Other tasks at once. Default: as the CPUs allow.")]
ShardRows = Annotated[int | None, typer.Option(help="Phrases a shard, the unit of resume. Default: by size.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings (BuildConfig); options override it.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Discard an unfinished build, and build anew in any case.")
]


def build(settings: dict[str, Any], file: Path | None, *, restart: bool, as_json: bool) -> None:
    """Run a build by the settings that are not None, on top of those in a file, and print its report."""
    with resumable():
        from cellular.config import BuildConfig
        from pipelines.build_phrase_bank import run

        config = BuildConfig.model_validate(merge(read_settings(file) if file else {}, settings))
        show_report(run(config, restart=restart), as_json)


def corpus_settings(
    inputs: list[str] | None, text_column: str | None, format: str | None, text_records: str | None
) -> dict[str, Any]:
    """The settings of a corpus."""
    return {
        "inputs": inputs or None,
        "text_column": text_column,
        "format": format,
        "text_records": text_records,
    }


def merge(base: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings over others; None leaves what was there."""
    merged = dict(base)
    for name, value in settings.items():
        if isinstance(value, dict):
            merged[name] = merge(merged.get(name) or {}, value)
        elif value is not None:
            merged[name] = value
    return merged


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML file."""
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CellularError(f"cannot read the settings in {path}: {error}") from None
    if not isinstance(settings, dict):
        raise CellularError(f"{path} must hold names and values, as the configuration has them")
    return settings


def show_report(report: "BuildReport", as_json: bool) -> None:
    """Print what a build did."""
    fields = report.model_dump(mode="json")
    if as_json:
        show_fields(fields, as_json=True)
        return
    if report.up_to_date:
        print(f"{report.path} is up to date: {report.version}, {report.phrases:,} phrases")
        return
    print(f"{report.path} {report.version}: {report.phrases:,} phrases, {report.occurrences:,} occurrences")
    print(f"embedded {report.embedded:,}, reused {report.reused:,}, done before {report.resumed:,}")
    print(f"read {report.records:,} records; rejected: {_counts(report.rejects)}")
    print(f"phrases left out: {_counts(report.dropped)}")
    print("seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report.seconds.items()))


def _counts(counts: dict[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
    return f"{sum(counts.values()):,}" + (f" ({reasons})" if reasons else "")
