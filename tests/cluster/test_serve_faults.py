"""What breaks or changes while requests come without a pause, and how many of them fail."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import httpx
import psutil
import pytest
from ray import serve
from ray.cluster_utils import Cluster

from cellular.bank import create_bank
from cellular.teachers import HashTeacher
from serve import app
from serve.settings import ServeConfig
from tests.cluster.conftest import CLIENTS, PHRASES, REPLICAS, healthy, replicas
from tests.load import Load, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


def suspended_at_work(stage: str, load: Load) -> psutil.Process:
    """A replica that has taken a request which it will never answer.

    Calls for a bank go to where it is open, so that one replica may get none, and none goes to one that was
    suspended between two.
    """
    for victim in cycle(replicas(stage)):
        victim.suspend()
        with suppress(AssertionError):
            wait_until(load.stuck, 5)
            break
        victim.resume()
        load.more(CLIENTS)
    return victim


@pytest.mark.parametrize("stage", ["Embedder", "PhraseBankDecoder"])
def test_no_request_fails_with_a_replica_that_is_killed_in_its_midst(load: Load, stage: str) -> None:
    with load.running():
        suspended_at_work(stage, load).kill()
        load.more(100)
    assert load.failures == []
    wait_until(lambda: len(replicas(stage)) == REPLICAS)


def test_a_bank_is_swapped_for_a_new_version_and_no_request_fails(load: Load, bank: Path) -> None:
    with load.running():
        load.more(20)
        create_bank(bank, [*PHRASES, "a lake is no sea"], HashTeacher())
        wait_until(lambda: load.answers[-1]["bank"]["version"] == "v000002")
        load.more(20)
    assert load.failures == []
    assert {answer["bank"]["phrases"] for answer in load.answers} == {len(PHRASES), len(PHRASES) + 1}


def test_a_rolling_change_of_the_configuration_fails_no_request(
    load: Load, http: httpx.Client, config: ServeConfig
) -> None:
    """Every replica is replaced: the arguments are part of a deployment's version."""
    before = {process.pid for process in replicas("Gateway")}
    smaller = config.limits.model_copy(update={"max_batch": 2})
    with load.running():
        serve.run(app.build(config.model_copy(update={"limits": smaller})), name=app.NAME)
        load.more(20)
    assert load.failures == []
    assert before.isdisjoint(process.pid for process in replicas("Gateway"))
    assert http.post("/v1/decode", json={"texts": ["a"] * 3}).status_code == 413


def test_a_killed_gateway_takes_what_it_was_answering_and_a_client_that_asks_again_gets_it_all(
    load: Load, patient_load: Load
) -> None:
    with load.running(), patient_load.running():
        victim = replicas("Gateway")[0]
        victim.suspend()
        wait_until(lambda: load.stuck() and patient_load.stuck())
        victim.kill()
        load.more(50)
        patient_load.more(50)
    assert len(load.failures) <= CLIENTS
    assert patient_load.failures == []


def test_beyond_a_full_queue_requests_are_refused_at_once_and_none_hangs(http: httpx.Client) -> None:
    """The stages are stopped, so that what is accepted waits: whoever is answered meanwhile is refused."""
    stopped = [*replicas("Embedder")]
    with ThreadPoolExecutor(60) as pool:
        for process in stopped:
            process.suspend()
        waiting = [pool.submit(http.post, "/v1/decode", json={"texts": [text]}) for text in PHRASES[:60]]
        wait_until(lambda: sum(one.done() for one in waiting) >= 20)
        refused = [one.result() for one in waiting if one.done()]
        for process in stopped:
            process.resume()
        accepted = [one.result() for one in waiting if one.result() not in refused]
    assert {response.status_code for response in refused} == {503}
    assert all(response.headers["retry-after"] == "1" for response in refused)
    assert {response.status_code for response in accepted} <= {200, 503}
    assert any(response.is_success for response in accepted)


def test_a_killed_node_takes_what_its_gateway_was_answering_and_a_client_that_asks_again_gets_it_all(
    load: Load, patient_load: Load, nodes: Cluster
) -> None:
    """The last test here: one node carries everything afterwards."""
    with load.running(), patient_load.running():
        nodes.remove_node(min(nodes.worker_nodes, key=id), allow_graceful=False)
        load.more(100)
        patient_load.more(100)
        wait_until(healthy)
    assert len(load.failures) <= CLIENTS
    assert patient_load.failures == []
