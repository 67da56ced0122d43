"""What callers of the served application meet: keys, request ids, the client, and no failure for any body."""

import asyncio
import json
import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cellular import APIError, Client
from cellular.bank import create_bank
from cellular.teachers import HashTeacher
from serve import app
from serve.auth import key_line
from serve.settings import ServeConfig

FUZZ = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "fuzz_serve.py"))
PHRASES = ["a cat sleeps by the river", "two dogs wait at the gate", "the owl sings", "some bees"]
STAGES = ["PhraseBankDecoder", "RETDecoder", "HybridDecoder"]
TEACHER = HashTeacher(384)
PATIENCE_S = 60

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the application's keys are and its logs go."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "keys").write_text(key_line("first", "all tests"))
    return folder


@pytest.fixture(scope="module")
def url(cluster, folder, ret_checkpoint):
    create_bank(folder / "bank", PHRASES, TEACHER)
    config = ServeConfig.model_validate(
        {
            "banks": [str(folder / "bank")],
            "checkpoint": str(ret_checkpoint),
            "engine": "torch",
            "stages": STAGES,
            "interface": {"api_keys": folder / "keys"},
        }
    )
    options = app.application_options()
    options["logging_config"]["logs_dir"] = str(folder / "logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "application_options", lambda: options)
        with app.running(config, port=0) as url:
            yield url


@pytest.fixture(scope="module")
def client(url):
    with Client(url, api_key="first", timeout_s=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="module")
def http(url):
    headers = {"Authorization": "Bearer first"}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S) as http:
        yield http


def stages_that_logged(folder, request_id):
    """The deployments whose log names the request."""
    lines = [line for file in folder.glob("**/*.log") for line in file.read_text().splitlines()]
    objects = [json.loads(line) for line in lines if request_id in line]
    named = [one for one in objects if request_id in one.get("request_id", "").split(",")]
    return {one["deployment"].removeprefix(f"{app.NAME}_") for one in named}


def test_a_request_is_named_in_the_logs_of_every_stage_that_it_met(http, folder):
    """Hybrid asks the Embedder itself: the id goes along, also where requests were joined."""

    def decode(number):
        body = {"texts": [PHRASES[number % 4]], "decoder": "hybrid"}
        return http.post("/v1/decode", json=body, headers={"X-Request-ID": f"request-{number}"})

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(decode, range(8)))
    assert [one.headers.get_list("x-request-id") for one in responses] == [
        [f"request-{number}"] for number in range(8)
    ]
    until = time.monotonic() + PATIENCE_S
    for number in range(8):
        while stages_that_logged(folder, f"request-{number}") != {"Gateway", "Embedder", "HybridDecoder"}:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_a_refused_request_has_its_id_in_the_problem(http):
    made = http.get("/nowhere")
    assert made.json()["instance"] == made.headers["x-request-id"]
    assert http.get("/nowhere", headers={"X-Request-ID": "x" * 129}).status_code == 400


def test_keys_are_asked_for_and_rotated_while_it_serves(url, folder):
    with Client(url, timeout_s=PATIENCE_S) as stranger, pytest.raises(APIError, match="401"):
        stranger.models()
    assert httpx.get(f"{url}/healthz", timeout=PATIENCE_S).is_success
    with (folder / "keys").open("a") as file:
        file.write(key_line("second", "a late test"))
    with Client(url, api_key="second", timeout_s=PATIENCE_S) as client:
        assert client.models().data


def test_the_client_has_what_is_served(client):
    vectors = client.embeddings(PHRASES)
    assert (vectors == TEACHER.encode(PHRASES)).all()
    answer = client.decode(vectors, method="greedy")
    assert [result.text for result in answer.results] == PHRASES
    *parts, last = client.stream(vectors[:1], decoder="ret", max_length=20)
    assert "".join(part.text for part in parts) == last.results[0].text
    assert set(client.stats().stages) == {"Embedder", *STAGES}


def test_a_damaged_body_is_never_a_failure_of_the_server(url, folder):
    """The hundreds of `benchmarks/fuzz_serve.py`; it sends ten thousand where it is told to."""
    statuses, failures = asyncio.run(FUZZ["send_all"](url, count=100, seed=2, at_once=2, key="first"))
    assert failures == 0
    assert set(statuses) <= {200, 400, 404, 413, 422}
