"""Writes cellular.json, Grafana's dashboard of the application: `python deploy/grafana/dashboard.py`.

A row of it is a question; a panel is a title, a unit of Grafana's, and what it draws by the legend's labels.
Memory and processors of nodes and replicas are on Ray's own dashboards.
"""

import json
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("cellular.json")
OURS = 'application="cellular"'
WIDTH, HEIGHT = 8, 8  # of a panel: three stand side by side


class Panel(NamedTuple):
    """A time series for each query; `queries` are pairs of a legend and PromQL."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""


def rate(metric: str, by: str, labels: str = "") -> str:
    """How much a counter grows in a second."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str, labels: str = "") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', f'le, {by}', labels)})"


def mean(total: str, histogram: str) -> str:
    """What a batch adds to a counter: Ray's sums of histograms are estimates."""
    return f"{rate(total, 'stage')} / {rate(f'{histogram}_count', 'stage')}"


def share(metric: str, by: str, labels: str) -> str:
    """The part of a counter that has these labels; 0 where none has."""
    whole = rate(metric, by)
    return f"({rate(metric, by, labels)} or 0 * {whole}) / {whole}"


ROWS: dict[str, tuple[Panel, ...]] = {
    "How are the requests answered?": (
        Panel(
            "Requests",
            "reqps",
            (
                (
                    "{{route}} {{status_code}}",
                    rate("ray_serve_num_http_requests_total", "route, status_code", OURS),
                ),
            ),
            "503: a queue was full; 504: the deadline passed; 500 and 502 are faults of ours",
        ),
        Panel(
            "Time to the end of an answer",
            "ms",
            tuple(
                (
                    f"{{{{route}}}} p{100 * q:g}",
                    quantile(q, "ray_serve_http_request_latency_ms", "route", OURS),
                )
                for q in (0.5, 0.99)
            ),
        ),
        Panel(
            "Sessions in memory",
            "short",
            (("sessions", "sum(ray_cellular_sessions)"),),
        ),
    ),
    "Which stage do they wait for?": (
        Panel(
            "Requests that needed a stage",
            "reqps",
            (("{{stage}} {{outcome}}", rate("ray_cellular_requests_total", "stage, outcome")),),
        ),
        Panel(
            "Wait for a stage, p99",
            "s",
            (("{{stage}}", quantile(0.99, "ray_cellular_request_seconds", "stage")),),
            "queues and the way there included",
        ),
        Panel(
            "Calls that wait in queues",
            "short",
            (("{{deployment}}", f"sum by (deployment) (ray_serve_deployment_queued_queries{{{OURS}}})"),),
        ),
    ),
    "What do the workers do?": (
        Panel(
            "Rows a second",
            "rowsps",
            (("{{stage}}", rate("ray_cellular_rows_total", "stage")),),
            "texts or embeddings; of the Embedder: what the teacher embeds",
        ),
        Panel(
            "Rows in a batch",
            "short",
            (("{{stage}}", mean("ray_cellular_rows_total", "ray_cellular_batch_rows")),),
        ),
        Panel(
            "Time of a batch",
            "s",
            (
                ("{{stage}} mean", mean("ray_cellular_busy_seconds_total", "ray_cellular_batch_seconds")),
                ("{{stage}} p99", quantile(0.99, "ray_cellular_batch_seconds", "stage")),
            ),
        ),
    ),
    "Does each stage scale?": (
        Panel(
            "Replicas",
            "short",
            (
                ("{{deployment}}", f"count by (deployment) (ray_serve_replica_processing_queries{{{OURS}}})"),
                (
                    "{{deployment}} wanted",
                    f"max by (deployment) (ray_serve_autoscaling_desired_replicas{{{OURS}}})",
                ),
            ),
            "wanted: before the bounds of config.yaml",
        ),
        Panel(
            "Workers at work",
            "short",
            (("{{stage}}", rate("ray_cellular_busy_seconds_total", "stage")),),
            "how many are computing at a time, on average",
        ),
        Panel(
            "Health",
            "short",
            (("{{deployment}}", f"min by (deployment) (ray_serve_deployment_status{{{OURS}}})"),),
            "6: healthy; 3 to 5: changing; 2: unhealthy; 1: does not start",
        ),
    ),
    "Where do the texts come from?": (
        Panel(
            "Texts by source",
            "short",
            (("{{stage}} {{source}}", rate("ray_cellular_answers_total", "stage, source")),),
        ),
        Panel(
            "Cache hits and fallbacks",
            "percentunit",
            tuple(
                (
                    f"{{{{stage}}}} {source}",
                    share("ray_cellular_answers_total", "stage", f'source="{source}"'),
                )
                for source in ("cache", "fallback")
            ),
        ),
        Panel(
            "Texts judged by the teacher, an answer",
            "short",
            (
                (
                    "{{stage}}",
                    f"{rate('ray_cellular_teacher_calls_total', 'stage')} / "
                    f"{rate('ray_cellular_answers_total', 'stage')}",
                ),
            ),
        ),
    ),
}


def drawn(panel: Panel, number: int, x: int, y: int) -> dict[str, object]:
    """A panel as Grafana stores it."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
        },
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": source, "expr": expression, "legendFormat": legend}
            for place, (legend, expression) in enumerate(panel.queries)
        ],
    }


def dashboard() -> dict[str, object]:
    """The whole of it, for Grafana 9 and later."""
    panels: list[dict[str, object]] = []
    for place, (question, row) in enumerate(ROWS.items()):
        y = place * (HEIGHT + 1)
        head = {"type": "row", "title": question, "collapsed": False, "panels": []}
        panels.append({"id": len(panels) + 1, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, **head})
        for column, panel in enumerate(row):
            panels.append(drawn(panel, len(panels) + 1, column * WIDTH, y + 1))
    choice = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "cellular",
        "title": "cellular",
        "tags": ["ray", "cellular"],
        "schemaVersion": 37,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {"list": [choice]},
        "panels": panels,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n")
