"""What an evaluation of mappers found: JSON, and one page that needs no other file or host."""

from datetime import datetime
from pathlib import Path

from cellular.config import Settings
from cellular.metrics import Estimate
from pipelines.report_files import render, write_files

COLUMNS = {"r1": "R@1", "r10": "R@10", "mrr": "MRR", "cosine": "cosine"}


class MappingRow(Settings):
    """A line of the table: one mapper on one test."""

    set: str
    history: bool
    mapper: str
    texts: int
    scores: dict[str, Estimate]
    parameters: int
    ms: float  # milliseconds an embedding in batches of 64, median


class MappingReport(Settings):
    """What the table, the JSON and the page say."""

    created: datetime
    version: str
    machine: str
    task: str
    split: str
    teacher: str
    mappers: dict[str, dict[str, str]]
    rows: list[MappingRow]


def cells(row: MappingRow) -> dict[str, str]:
    """A row as the table and the page show it: each mean ± its standard error."""
    scores = {
        heading: f"{row.scores[name].mean:.3f}±{row.scores[name].error:.3f}"
        for name, heading in COLUMNS.items()
    }
    return {
        "set": row.set + (" with history" if row.history else ""),
        "mapper": row.mapper,
        **scores,
        "parameters": f"{row.parameters:,}",
        "ms": f"{row.ms:.2f}",
    }


def write_report(report: MappingReport, folder: Path) -> list[Path]:
    """Write report.html and report.json into a folder.

    Raises:
        CellularError: the folder cannot be written.
    """
    contents = {
        "report.html": page(report).encode(),
        "report.json": report.model_dump_json(indent=2).encode(),
    }
    return write_files(contents, folder)


def page(report: MappingReport) -> str:
    """The report as one HTML page."""
    return render("mapping_report.html", report=report, rows=[cells(row) for row in report.rows])
