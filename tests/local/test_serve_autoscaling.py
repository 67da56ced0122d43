"""Each stage has the replicas that its own load asks for, as it is configured, but for the delays."""

import httpx
import pytest
from ray import serve

from cellular.teachers import HashTeacher
from serve import app
from serve.settings import Limits, ServeConfig
from tests.load import Load, wait_until

BUSY, IDLE = 3, 1
SCALING = {
    "min_replicas": IDLE,
    "max_replicas": BUSY,
    "metrics_interval_s": 0.1,
    "look_back_period_s": 0.5,
    "upscale_delay_s": 0.3,
    "downscale_delay_s": 1.0,
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


@pytest.fixture(scope="module")
def client(cluster, ret_checkpoint):
    options = app.deployment_options()
    for name in ("Embedder", "RETDecoder"):
        options[name] |= {
            "autoscaling_config": options[name]["autoscaling_config"] | SCALING,
            "ray_actor_options": {"num_cpus": 0.1},
            "graceful_shutdown_wait_loop_s": 0.1,
        }
    config = ServeConfig(
        stages=("RETDecoder",),
        checkpoint=str(ret_checkpoint),
        engine="torch",
        limits=Limits(deadline_s=250),  # answers are slow while replicas start on a small machine
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "deployment_options", lambda: options)
        with app.running(config, port=0) as url, httpx.Client(base_url=url, timeout=300) as client:
            yield client


def running(stage):
    """How many replicas of a stage answer."""
    states = serve.status().applications[app.NAME].deployments[stage].replica_states
    return states.get("RUNNING", 0)


def replicas():
    """How many there are of each stage, those that start or stop included."""
    deployments = serve.status().applications[app.NAME].deployments
    return {name: sum(deployments[name].replica_states.values()) for name in ("Embedder", "RETDecoder")}


@pytest.mark.parametrize("busy", ["RETDecoder", "Embedder"])
def test_load_on_one_stage_scales_it_and_not_the_other_and_goes_with_it(client, busy):
    vectors, text = HashTeacher(384).encode(["a cat", "two dogs"]).tolist(), "water under the bridge " * 300
    requests = {
        "RETDecoder": ("/v1/decode", {"embeddings": vectors, "max_length": 64}),
        "Embedder": ("/v1/embeddings", {"model": "hash:384", "input": [text] * 30}),
    }
    path, body = requests[busy]
    idle = ({"RETDecoder", "Embedder"} - {busy}).pop()
    load, most = Load(lambda: client.post(path, json=body).raise_for_status()), 0

    def grown():
        nonlocal most
        most = max(most, replicas()[idle])
        return running(busy) == BUSY

    with load.running():
        wait_until(grown)
        load.more(BUSY)
        assert replicas()[busy] == BUSY
    assert most == IDLE
    wait_until(lambda: replicas() == {busy: IDLE, idle: IDLE})
    assert load.failures == []
