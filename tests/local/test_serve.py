"""The application on Ray Serve: one start for the module, requests over loopback."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from itertools import product

import httpx
import numpy as np
import openai
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cellular.bank import create_bank
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from serve import app
from serve.settings import ServeConfig

ANIMALS, VERBS = ("a cat", "two dogs", "the owl", "some bees"), ("sleeps", "waits", "sings")
PLACES = ("river", "old gate", "fire", "sea")
PHRASES = [f"{animal} {verb} by the {place}" for animal, verb, place in product(ANIMALS, VERBS, PLACES)]
TEACHER = HashTeacher(384)
NARROW = {
    "max_ongoing_requests": 1,
    "max_queued_requests": 1,
}  # of the Embedder, so that few requests fill it

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank")
    create_bank(path, PHRASES, TEACHER)
    return path


@pytest.fixture(scope="module")
def client(cluster, bank, ret_checkpoint):
    options = app.deployment_options()
    options["RETDecoder"]["max_ongoing_requests"] = 1
    options["Embedder"] |= NARROW | {"user_config": {"max_batch_size": 1, "batch_wait_timeout_s": 0.0}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "deployment_options", lambda: options)
        with (
            app.running(
                ServeConfig(banks={"main": bank}, checkpoint=str(ret_checkpoint), engine="torch"), port=0
            ) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            yield client


def stream(client, body):
    """Name and data of each event, as they come."""
    with client.stream("POST", "/v1/decode", json=body | {"stream": True}) as response:
        for line in response.iter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                yield name, json.loads(value)


def test_a_text_comes_back_through_both_routes(client):
    embedder = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none")
    answer = embedder.embeddings.create(input=PHRASES, model=TEACHER.name)
    rows = np.array([entry.embedding for entry in answer.data], np.float32)
    assert np.array_equal(rows, TEACHER.encode(PHRASES))
    decoded = client.post("/v1/decode", json={"embeddings": rows.tolist(), "method": "greedy"}).json()
    assert [result["candidates"][0]["phrase"] for result in decoded["results"]] == PHRASES


@pytest.mark.parametrize("decoder", ["phrase_bank", "ret", "hybrid"])
def test_every_decoder_answers(client, decoder):
    answer = client.post("/v1/decode", json={"texts": PHRASES[:3], "decoder": decoder}).json()
    assert answer["decoder"] == decoder
    assert all(result["text"] for result in answer["results"])


def test_the_increments_of_a_stream_join_to_the_text_without_one(client):
    body = {"texts": PHRASES[:2], "decoder": "ret", "max_length": 40}
    plain = client.post("/v1/decode", json=body).json()
    written = ["", ""]
    for name, data in stream(client, body):
        if name == "text":
            written[data["index"]] += data["text"]
    assert name == "result"
    assert written == [result["text"] for result in plain["results"]]
    assert data["results"] == plain["results"]


def test_a_client_that_hangs_up_frees_the_replica(client):
    """The stream would take minutes, and the decoder takes one request at a time."""
    body = {"texts": PHRASES * 20, "decoder": "ret", "max_length": 512}
    for name, _ in stream(client, body):
        assert name == "text"
        break
    assert client.post("/v1/decode", json={"texts": ["a"], "decoder": "ret", "max_length": 1}).is_success


def test_wrong_options_are_refused_with_their_place(client):
    for options, pointer in (({"decoder": "ret", "method": "greedy"}, "#/method"), ({"beam": 2}, "#/beam")):
        response = client.post("/v1/decode", json={"texts": ["a"]} | options)
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == pointer


def test_requests_that_share_a_batch_get_their_own_answers(client):
    rows = TEACHER.encode(PHRASES)

    def decode(number):
        body = {
            "embeddings": rows[number : number + 2].tolist(),
            "method": ("greedy", "weighted")[number % 2],
        }
        return [result["text"] for result in client.post("/v1/decode", json=body).json()["results"]]

    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(decode, range(32)))
    assert texts == [PHRASES[number : number + 2] for number in range(32)]


def test_a_full_queue_is_503_with_retry_after_and_the_rest_is_answered(client):
    body = {"texts": ["water under the bridge " * 300] * 100}

    def decode(_):
        return client.post("/v1/decode", json=body)

    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(decode, range(12)))
    statuses = {response.status_code for response in responses}
    assert statuses == {200, 503}
    refused = [response for response in responses if response.status_code == 503]
    assert all(response.headers["retry-after"] == "1" for response in refused)
    assert refused[0].json()["code"] == "overloaded"
    assert client.get("/readyz").json()["status"] == "ready"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'"text"',
        b'{"texts": null}',
        b'{"texts": {}}',
        b'{"texts": [""]}',
        b'{"texts": ["\\ud800"]}',
        b'{"texts": ["a\\u0000b"], "top_k": 1e99}',
        b'{"texts": ["a"], "method": "\\ud800"}',
        b'{"embeddings": []}',
        b'{"embeddings": [[]]}',
        b'{"embeddings": [[NaN]]}',
        b'{"embeddings": [[Infinity], [1, 2]]}',
        b'{"embeddings": [[1' + b"0" * 5000 + b"]]}",
        b'{"embeddings": 3, "session": {}}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/decode"])
def test_a_malformed_body_is_never_a_failure_of_the_server(client, path, body):
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"


def test_the_deployments_of_the_graph_are_those_of_the_configuration(client, bank):
    text = resources.files("serve").joinpath("config.yaml").read_text("utf-8")
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
    assert application.import_path == "serve.app:build"
    ServeConfig.model_validate(application.args)
    running = app.serve.status().applications[app.NAME].deployments
    assert set(running) == {deployment.name for deployment in application.deployments}


def test_another_teacher_than_the_banks_is_refused_before_anything_starts(tmp_path):
    teacher = HashTeacher(dimension=128)
    teacher.name = "another"
    create_bank(tmp_path, PHRASES, teacher)
    with pytest.raises(CellularError, match=f"{teacher.fingerprint}.*{HashTeacher().fingerprint}"):
        app.build(ServeConfig(banks={"one": tmp_path}, stages=("PhraseBankDecoder",), teacher="hash"))


def test_a_checkpoint_of_another_teacher_is_refused_before_anything_starts(tmp_path, ret_checkpoint):
    other = HashTeacher()
    create_bank(tmp_path, PHRASES, other)
    both = f"{TEACHER.fingerprint}.*{other.fingerprint}"
    with pytest.raises(CellularError, match=both):
        app.build(ServeConfig(banks={"one": tmp_path}, checkpoint=str(ret_checkpoint)))
    with pytest.raises(CellularError, match=both):
        app.build(ServeConfig(checkpoint=str(ret_checkpoint), teacher="hash"))


def test_a_taken_port_is_one_clear_line(client, bank):
    with (
        pytest.raises(CellularError, match="cannot listen on"),
        app.running(ServeConfig(banks={"main": bank}), port=client.base_url.port),
    ):
        pass


def test_the_command_serves_ret_alone_and_ctrl_c_ends_all_it_started(ret_checkpoint):
    command = [sys.executable, "-m", "jobs.serve", "--checkpoint", str(ret_checkpoint), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        line = next(line for line in process.stdout if line.startswith("serving"))
        health = httpx.get(f"{line.split()[3]}/readyz").json()
        assert health["stages"] == {"Embedder": "ready", "RETDecoder": "ready"}
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
