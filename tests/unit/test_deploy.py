"""What stands in deploy/, as far as it can be tried without a Kubernetes or a Grafana."""

import importlib.util
import json
import subprocess
from itertools import combinations
from pathlib import Path, PurePosixPath

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve.settings import ServeConfig

ROOT = Path(__file__).parents[2]
GRAFANA, ALERTS = ROOT / "deploy/grafana/cellular.json", ROOT / "deploy/prometheus"


@pytest.fixture(scope="module")
def service():
    loaded = yaml.safe_load((ROOT / "deploy/kuberay.yaml").read_text("utf-8"))
    assert loaded["kind"] == "RayService"
    return loaded["spec"]


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(GRAFANA.read_text("utf-8"))


@pytest.fixture(scope="module")
def containers(service):
    cluster = service["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def expressions(dashboard):
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_ray_serve_and_the_application_accept_what_kuberay_deploys(service):
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "serve.app:build"
    ServeConfig.model_validate(application.args)


def test_the_cluster_asks_for_a_token_and_has_the_pinned_ray(service):
    cluster = service["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert f"rayproject/ray:{cluster['rayVersion']}-" in (ROOT / "deploy/Dockerfile").read_text("utf-8")


def test_every_pod_sees_the_files_that_the_application_is_given(service, containers):
    args = yaml.safe_load(service["serveConfigV2"])["applications"][0]["args"]
    files = [PurePosixPath(word) for word in strings(args) if word.startswith("/")]
    assert files
    for container in containers:
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert all(any(file.is_relative_to(mount) for mount in mounts) for file in files)


def test_every_pod_has_the_ports_of_requests_and_metrics(containers):
    for container in containers:
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["serve"] == 8000
        assert ports["metrics"] == 8080


def test_every_pod_has_the_fast_proxy_and_lets_stages_share_a_node(containers):
    for container in containers:
        on = {variable["name"] for variable in container["env"] if variable["value"] == "1"}
        assert on >= {
            "RAY_SERVE_ENABLE_HA_PROXY",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED",
            "RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY",
        }


def test_the_image_has_every_package_of_the_project():
    lines = (ROOT / "deploy/Dockerfile").read_text("utf-8").splitlines()
    copied = {words[2] for line in lines if (words := line.split())[:1] == ["COPY"] and len(words) == 4}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == copied


def test_the_dashboard_is_what_its_generator_writes(dashboard):
    spec = importlib.util.spec_from_file_location("dashboard", GRAFANA.with_name("dashboard.py"))
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert dashboard == generator.dashboard()


def test_no_panels_of_the_dashboard_overlap_or_share_an_id(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = [one[axis] + one[size] <= other[axis] or other[axis] + other[size] <= one[axis]
                 for axis, size in ("xw", "yh")]  # fmt: skip
        assert any(apart)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_prometheus_accepts_every_query_of_the_dashboard(dashboard, prometheus, tmp_path):
    rules = [
        {"record": f"panel_{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions(dashboard))
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run([prometheus / "promtool", "check", "rules", file], check=True, capture_output=True)


def test_every_alert_fires_when_it_should_and_says_what_to_do(prometheus):
    rules = yaml.safe_load((ALERTS / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    assert all(rule["annotations"].keys() == {"summary", "action"} for rule in rules)
    tested = (ALERTS / "alerts_test.yml").read_text("utf-8")
    assert all(f"alertname: {rule['alert']}" in tested for rule in rules)
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([prometheus / "promtool", *command], cwd=ALERTS, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def strings(value):
    """All strings in nested lists and dictionaries."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value
