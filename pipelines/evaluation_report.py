"""What an evaluation found: JSON, lines of answers, and one page that needs no other file or host."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import orjson

from cellular.config import Settings
from cellular.metrics import Estimate, TextScores
from pipelines.report_files import render, write_files

Kind = Literal["good", "typical", "worst"]

EXAMPLES = 4  # of each kind, a decoder and a set
COLUMNS = {  # heading and digits of each score, as the table and the page show them
    "bleu": ("BLEU", 1),
    "chrf": ("chrF", 1),
    "sentence_bleu": ("sBLEU", 1),
    "f1": ("F1", 3),
    "exact_match": ("EM", 3),
    "cosine": ("cosine", 3),
}
_BETTER: dict[Kind, float] = {"good": 0.1, "typical": 0.5, "worst": 1.0}  # share of answers that are nearer


class Row(Settings):
    """A line of the table: one decoder on one test set."""

    set: str
    decoder: str
    texts: int
    seeds: int
    scores: dict[str, Estimate]
    teacher_calls: float  # texts that the decoder had the teacher embed, for each text decoded
    ms_batch_1: float  # milliseconds a text, median
    ms_batch_64: float


class Example(Settings):
    """One text, and what came back from its embedding."""

    set: str
    decoder: str
    kind: Kind
    input: str
    output: str
    cosine: float
    f1: float


class EvaluationReport(Settings):
    """What the table, the JSON and the page say."""

    created: datetime
    version: str
    machine: str
    split: str
    teacher: str
    signatures: dict[str, str]
    contenders: dict[str, dict[str, str]]
    rows: list[Row]
    examples: list[Example]
    notes: list[str]


@dataclass(frozen=True)
class Answers:
    """What one decoder answered to one test set with one seed."""

    set: str
    decoder: str
    seed: int
    inputs: list[str]
    outputs: list[str]
    scores: TextScores


@dataclass(frozen=True)
class Evaluation:
    """The report, and the answers that it sums up."""

    report: EvaluationReport
    answers: list[Answers]


def cells(row: Row) -> dict[str, str]:
    """A row as the table and the page show it: each mean ± its standard error."""
    scores = {
        heading: f"{row.scores[name].mean:.{digits}f}±{row.scores[name].error:.{digits}f}"
        for name, (heading, digits) in COLUMNS.items()
    }
    costs = {
        "calls": f"{row.teacher_calls:.3g}",
        "ms, 1": f"{row.ms_batch_1:.2f}",
        "ms, 64": f"{row.ms_batch_64:.2f}",
    }
    return {"set": row.set, "decoder": row.decoder, **scores, **costs}


def examples(answers: Answers) -> list[Example]:
    """Good, typical and worst answers: around the 90th and 50th percentile of the cosine, and the last."""
    order = np.argsort(-answers.scores.cosine, kind="stable").tolist()
    return [
        Example(
            set=answers.set,
            decoder=answers.decoder,
            kind=kind,
            input=answers.inputs[row],
            output=answers.outputs[row],
            cosine=float(answers.scores.cosine[row]),
            f1=float(answers.scores.f1[row]),
        )
        for kind, share in _BETTER.items()
        for row in _around(order, share)
    ]


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write report.html, report.json and answers.jsonl (every answer with its scores) into a folder.

    Raises:
        CellularError: the folder cannot be written.
    """
    contents = {
        "report.html": page(evaluation).encode(),
        "report.json": evaluation.report.model_dump_json(indent=2).encode(),
        "answers.jsonl": b"".join(map(_lines, evaluation.answers)),
    }
    return write_files(contents, folder)


def page(evaluation: Evaluation) -> str:
    """The report as one HTML page: tables, plots and examples, all of it inside."""
    from pipelines import evaluation_plots as plots

    report = evaluation.report
    return render(
        "evaluation_report.html",
        report=report,
        rows=[cells(row) for row in report.rows],
        scores=plots.scores(report),
        sets={
            name: {
                "plots": plots.answers([answer for answer in evaluation.answers if answer.set == name]),
                "examples": [example for example in report.examples if example.set == name],
            }
            for name in dict.fromkeys(row.set for row in report.rows)
        },
    )


def _around(order: list[int], share: float) -> list[int]:
    """A few neighbours at a place in an order."""
    start = round(share * len(order)) - EXAMPLES // 2
    start = max(0, min(start, len(order) - EXAMPLES))
    return order[start : start + EXAMPLES]


def _lines(answers: Answers) -> bytes:
    """One JSON object for each answer."""
    scores = asdict(answers.scores)
    return b"".join(
        orjson.dumps(
            {
                "set": answers.set,
                "decoder": answers.decoder,
                "seed": answers.seed,
                "input": text,
                "output": answers.outputs[row],
                **{name: float(values[row]) for name, values in scores.items()},
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for row, text in enumerate(answers.inputs)
    )
