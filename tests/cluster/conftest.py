"""The application on three nodes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster

from cellular.bank import create_bank
from cellular.client.clients import Client
from cellular.teachers import HashTeacher
from serve import app
from serve.settings import BankSettings, Gathering, ServeConfig
from tests.load import Load, wait_until

PHRASES = [f"{number} boats sail by the {place}" for number in range(40) for place in ("sea", "river")]
REPLICAS = 2
CLIENTS = 4
os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="package")
def nodes() -> Iterator[Cluster]:
    """A head that runs no replicas, and two nodes of which each could run all.

    They end with these tests: a process can be in one Ray only.
    """
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": {"metrics_report_interval_ms": 1000}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "1000")
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="package")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bank")
    create_bank(path, PHRASES, HashTeacher())
    return path


@pytest.fixture(scope="package")
def config(bank: Path) -> ServeConfig:
    """With queues that a test can fill, and a bank that is looked after often."""
    return ServeConfig(
        banks={"boats": BankSettings(folder=bank)},
        stages=("PhraseBankDecoder",),
        refresh_s=0.2,
        gathering=Gathering(calls=2, rows=4, queue=8),
    )


@pytest.fixture(scope="package")
def url(nodes: Cluster, config: ServeConfig) -> Iterator[str]:
    """Where the application is; each stage has two replicas."""
    options = app.deployment_options()
    for one in options.values():
        one.pop("autoscaling_config", None)
        one |= {
            "num_replicas": REPLICAS,
            "ray_actor_options": {"num_cpus": 0.1},
            "graceful_shutdown_wait_loop_s": 0.1,
        }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "deployment_options", lambda: options)
        with app.running(config, port=0) as url:
            yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A client that takes every failure as it comes, of an application in good health."""
    wait_until(healthy)
    with httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        yield client


@pytest.fixture
def load(http: httpx.Client) -> Load:
    """Texts that go through the Embedder and the decoder; bodies of the answers."""
    body = {"texts": PHRASES[:2], "method": "greedy"}

    def send() -> Any:
        return http.post("/v1/decode", json=body).raise_for_status().json()

    return Load(send, CLIENTS)


@pytest.fixture
def patient_load(url: str) -> Iterator[Load]:
    """The same through the client of this project, which asks again."""
    with Client(url) as client:
        yield Load(lambda: client.decode(texts=PHRASES[:2], method="greedy"), CLIENTS)


def healthy() -> bool:
    """Whether every stage has the replicas that it should have."""
    return all(
        one.status == "HEALTHY" and one.replica_states == {"RUNNING": REPLICAS}
        for one in serve.status().applications[app.NAME].deployments.values()
    )


def replicas(stage: str) -> list[psutil.Process]:
    """The processes of a stage's replicas, on all nodes."""
    title = f"ray::ServeReplica:{app.NAME}:{stage}"
    return [process for process in psutil.Process().children(recursive=True) if _title(process) == title]


def _title(process: psutil.Process) -> str:
    try:
        return process.cmdline()[0].partition(".")[0].strip()
    except (psutil.Error, IndexError):  # it ended meanwhile
        return ""
