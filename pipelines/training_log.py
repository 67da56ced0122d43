"""What a training says while it runs: a line on the terminal, a file, Prometheus, TensorBoard, MLflow."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ray.train import Checkpoint, UserCallback
from ray.util.metrics import Gauge

METRICS = "metrics.jsonl"
SPEED = "_per_second"  # after the unit: tokens, embeddings
POLL_SECONDS = 0.5
Metrics = dict[str, Any]


class _Log(UserCallback):
    """Gets the metrics that rank 0 reports, in Ray Train's controller."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def after_report(self, run_context: Any, metrics: list[Metrics], checkpoint: Checkpoint | None) -> None:
        """Log the numbers of one report."""
        self.log({name: value for name, value in metrics[0].items() if value is not None})

    def log(self, metrics: Metrics) -> None:
        """Take one report."""
        raise NotImplementedError


class MetricsFile(_Log):
    """A line of JSON a report: the curve of a model card."""

    def log(self, metrics: Metrics) -> None:
        """Append it."""
        with (self._target / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")


class PrometheusGauges(_Log):
    """Gauges that are scraped where Ray's own metrics are."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._gauges: dict[str, Gauge] = {}

    def log(self, metrics: Metrics) -> None:
        """Set them."""
        for name, value in metrics.items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(f"cellular_training_{name}", f"{name} of the training")
            self._gauges[name].set(value)


class TensorBoardLog(_Log):
    """Scalars in TARGET/tensorboard."""

    _writer: Any = None  # opened in the controller's process: it doesn't travel

    def log(self, metrics: Metrics) -> None:
        """Write them at their step."""
        from tensorboardX import SummaryWriter

        self._writer = self._writer or SummaryWriter(str(self._target / "tensorboard"))
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, metrics["step"])
        self._writer.flush()


class MLflowLog(_Log):
    """Metrics of one MLflow run, at MLFLOW_TRACKING_URI or else in TARGET/mlflow.db."""

    def log(self, metrics: Metrics) -> None:
        """Write them at their step."""
        import mlflow

        if not mlflow.active_run():
            if not mlflow.is_tracking_uri_set():
                mlflow.set_tracking_uri(f"sqlite:///{self._target}/mlflow.db")
            mlflow.set_experiment("cellular")
            found = mlflow.search_runs(filter_string=f"tags.target = '{self._target}'", output_format="list")
            mlflow.start_run(
                run_id=found[0].info.run_id if found else None, tags={"target": str(self._target)}
            )
        mlflow.log_metrics(metrics, step=metrics["step"])


def callbacks(target: Path) -> list[UserCallback]:
    """The logs of a training, as far as what they need is installed."""
    logs: list[UserCallback] = [MetricsFile(target), PrometheusGauges(target)]
    if find_spec("tensorboardX"):
        logs.append(TensorBoardLog(target))
    if find_spec("mlflow"):
        logs.append(MLflowLog(target))
    return logs


def read_metrics(target: Path) -> list[Metrics]:
    """The curve so far; what a restart repeated is there once."""
    path = target / METRICS
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    curve: list[Metrics] = []
    for metrics in map(json.loads, lines):
        while curve and curve[-1]["step"] >= metrics["step"]:
            curve.pop()
        curve.append(metrics)
    return curve


@contextmanager
def following(target: Path) -> Iterator[None]:
    """Print a line on stderr for every report that arrives within the block."""
    path = target / METRICS
    path.touch()
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(path, path.stat().st_size, ended), daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _follow(path: Path, offset: int, ended: threading.Event) -> None:
    with path.open(encoding="utf-8") as file:
        file.seek(offset)
        last = False
        while not last:
            last = ended.wait(POLL_SECONDS)
            for line in file:
                print(describe(json.loads(line)), file=sys.stderr, flush=True)  # noqa: T201


def describe(metrics: Metrics) -> str:
    """One line for a person."""
    parts = [f"step {metrics['step']:,}", f"{metrics['progress']:.0%}"]
    if "loss" in metrics:
        parts.append(f"loss {metrics['loss']:.4f}")
    if "held_out_loss" in metrics:
        parts.append(f"held out {metrics['held_out_loss']:.4f}")
    for name in metrics:
        if name.endswith(SPEED):
            parts.append(f"{metrics[name]:,.0f} {name.removesuffix(SPEED)}/s")
    if "mfu" in metrics:
        parts.append(f"MFU {metrics['mfu']:.1%}")
    return "  ".join([*parts, f"{metrics['seconds']:,.0f} s"])
