"""The real Prometheus finds what the stages count, on every node."""

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml

from tests.load import Load, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
STAGES = ("Embedder", "PhraseBankDecoder")
METRICS = ('ray_cellular_requests_total{outcome="ok"}', "ray_cellular_rows_total")
Query = Callable[[str], dict[str, float]]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


@pytest.fixture
def api(url: str, prometheus: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """Prometheus with the shipped configuration, but for its times and the place of the list of nodes."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    targets = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in nodes]
    (tmp_path / "nodes.json").write_text(json.dumps([{"targets": targets}]))
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / file) for file in config["rule_files"]]
    config["scrape_configs"][0]["file_sd_configs"][0]["files"] = [str(tmp_path / "nodes.json")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    log = (tmp_path / "log").open("w")
    with log, subprocess.Popen([prometheus / "prometheus", *options], cwd=tmp_path, stderr=log) as process:
        with httpx.Client(base_url=f"http://{address}/api/v1") as client:
            yield client
        process.terminate()


@pytest.fixture
def query(api: httpx.Client) -> Query:
    """The values of a query by their labels; none as long as Prometheus starts."""

    def ask(expression: str) -> dict[str, float]:
        try:
            answer = api.get("/query", params={"query": expression})
        except httpx.ConnectError:
            return {}
        if not answer.is_success:
            return {}
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return {" ".join(one["metric"].values()): float(one["value"][1]) for one in result}

    return ask


def test_prometheus_counts_the_requests_of_every_stage_and_fills_the_dashboard(
    load: Load, query: Query, api: httpx.Client
) -> None:
    def total(metric: str) -> dict[str, float]:
        found = query(f"sum by (stage) ({metric})")
        return {stage: found.get(stage, 0) - before.get((metric, stage), 0) for stage in STAGES}

    before: dict[tuple[str, str], float] = {}
    wait_until(lambda: set(query("up").values()) == {1.0})
    before |= {(metric, stage): value for metric in METRICS for stage, value in total(metric).items()}
    with load.running():
        wait_until(lambda: all(query(panel) for panel in dashboard()))
    requests, rows = METRICS
    wait_until(lambda: total(requests) == dict.fromkeys(STAGES, len(load.answers)))
    wait_until(lambda: total(rows) == dict.fromkeys(STAGES, 2 * len(load.answers)))
    rules = api.get("/rules").json()["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def dashboard() -> list[str]:
    """The queries of its panels, but for what this application lacks."""
    panels = json.loads((DEPLOY / "grafana/cellular.json").read_text("utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [
        query.replace("$__rate_interval", "30s")
        for query in queries
        if not any(lacking in query for lacking in ("autoscaling", "sessions", "teacher_calls"))
    ]
