import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    return loaded


def commands(config: dict[str, Any], kind: str) -> str:
    return "\n".join(config[kind])


def test_ray_accepts_the_configuration(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["available_node_types"].keys() == config["available_node_types"].keys()


def test_an_unknown_key_would_be_refused(config: dict[str, Any]) -> None:
    from jsonschema import ValidationError

    with pytest.raises(ValidationError):
        validate_config(prepare_config(config | {"max_worker": 1}))


def test_workers_scale_from_nothing_within_the_bound(config: dict[str, Any]) -> None:
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != "head"}
    assert all(kind["min_workers"] < kind["max_workers"] for kind in workers.values())
    assert sum(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]
    assert {name for name, kind in workers.items() if kind["resources"].get("GPU")} == {"gpu_worker"}


@pytest.mark.parametrize("kind", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_authenticates_spills_and_has_the_fast_proxy(config: dict[str, Any], kind: str) -> None:
    assert "RAY_AUTH_MODE=token RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT" in commands(config, kind)
    assert "RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY=1 ~/venv/bin/ray start" in commands(config, kind)
    assert "--object-spilling-directory=" in commands(config, kind)


def test_mounted_project_files_exist_and_pin_the_set_up(config: dict[str, Any]) -> None:
    local = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert local
    assert all((ROOT / path).exists() for path in local)
    assert "-c constraints.txt -e ." in commands(config, "setup_commands")
