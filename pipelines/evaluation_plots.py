"""The plots of an evaluation's page, as data URIs of SVG: nothing outside the page is asked for."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.evaluation_report import COLUMNS, Answers, EvaluationReport

SHOWN = ("bleu", "f1", "exact_match", "cosine")
LENGTHS = (0, 20, 40, 60, 80, 120, 160)  # characters; bounds of the groups, the last one included
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cellular",  # the same figure, the same bytes
    "font.size": 9,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
}


def scores(report: EvaluationReport) -> str:
    """Bars of the main scores by set and decoder, with their standard errors."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((11, 2.8), layout="constrained")
        for axes, metric in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
            _bars(axes, report, metric)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
        return _uri(figure)


def answers(answers: Sequence[Answers]) -> str:
    """How a set's cosines are spread, and how F1 falls with the length of the text, by decoder."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((11, 2.8), layout="constrained")
        spread, lengths = figure.subplots(1, 2)
        firsts = {answer.decoder: answer for answer in reversed(answers)}  # of the first seed
        for decoder, answer in reversed(firsts.items()):
            spread.ecdf(answer.scores.cosine, label=decoder)
            lengths.errorbar(*_by_length(answer), label=decoder, marker=".", capsize=2)
        spread.set(xlabel="cosine to the input's embedding", ylabel="share of texts below")
        lengths.set(xlabel="characters of the input", ylabel="F1", ylim=(0, 1))
        figure.legend(*spread.get_legend_handles_labels(), loc="outside lower center", ncols=8)
        return _uri(figure)


def _bars(axes: Axes, report: EvaluationReport, metric: str) -> None:
    sets = list(dict.fromkeys(row.set for row in report.rows))
    width = 0.8 / len(report.contenders)
    for number, decoder in enumerate(report.contenders):
        estimates = [row.scores[metric] for row in report.rows if row.decoder == decoder]
        axes.bar(
            np.arange(len(sets)) + number * width,
            [estimate.mean for estimate in estimates],
            width,
            yerr=[estimate.error for estimate in estimates],
            label=decoder,
        )
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if metric == "cosine" else 0.0)
    middle = 0.4 - width / 2
    axes.set_xticks(np.arange(len(sets)) + middle, sets, rotation=20)
    axes.set_title(COLUMNS[metric][0])


def _by_length(answer: Answers) -> tuple[list[float], list[float], list[float]]:
    """Mean length, mean F1 and its standard error of the texts between two lengths."""
    lengths = np.array([len(text) for text in answer.inputs])
    group = np.digitize(lengths, LENGTHS[1:], right=True)
    rows = [np.flatnonzero(group == number) for number in np.unique(group)]
    f1 = [answer.scores.f1[some] for some in rows]
    errors = [float(values.std() / len(values) ** 0.5) for values in f1]
    return [float(lengths[some].mean()) for some in rows], [float(values.mean()) for values in f1], errors


def _uri(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index(b"<svg") :]  # without the prolog, which names a host
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
