"""The application on Ray Serve: one start for the module, requests over loopback, each with a key."""

import asyncio
import json
import os
import runpy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import ray
from ray import serve

from cellular import APIError, Client, decoders
from cellular.bank import create_bank
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from serve import app
from serve.auth import key_line
from serve.replicas import WorkerReplica
from serve.settings import ServeConfig

ANIMALS, VERBS = ("a cat", "two dogs", "the owl", "some bees"), ("sleeps", "waits", "sings")
PLACES = ("river", "old gate", "fire", "sea")
PHRASES = [f"{animal} {verb} by the {place}" for animal, verb, place in product(ANIMALS, VERBS, PLACES)]
TEACHER = HashTeacher(384)
ROWS = TEACHER.encode(["new"]).tolist()
NARROW = {"max_ongoing_requests": 1, "max_queued_requests": 1}  # of the Embedder: few requests fill it
FUZZ = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "fuzz_serve.py"))
PATIENCE_S = 60

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank")
    create_bank(path, PHRASES, TEACHER)
    return path


@pytest.fixture(scope="module")
def other_bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("other")
    create_bank(path, ["old"], TEACHER)
    return path


@pytest.fixture(scope="module")
def checkpoints(ret_checkpoint, lattice_checkpoint, text_to_text_checkpoint, adapter_checkpoint):
    return {
        "checkpoint": str(ret_checkpoint),
        "lattices": [str(lattice_checkpoint)],
        "text_to_text": str(text_to_text_checkpoint),
        "adapter": str(adapter_checkpoint),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the application's keys and sessions are, and its logs go."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "keys").write_text(key_line("first", "all tests"))
    return folder


@pytest.fixture(scope="module")
def url(cluster, bank, other_bank, checkpoints, folder):
    config = ServeConfig.model_validate(
        checkpoints
        | {"banks": {"main": bank, "other": other_bank}, "engine": "torch"}
        | {"sessions": {"file": folder / "sessions"}, "refresh_s": 0.1}
        | {"interface": {"api_keys": folder / "keys"}}
    )
    whole = app.application_options()
    whole["logging_config"]["logs_dir"] = str(folder / "logs")
    options = app.deployment_options()
    options["PhraseBankDecoder"] = {
        key: value for key, value in options["PhraseBankDecoder"].items() if key != "autoscaling_config"
    } | {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.05}}
    options["RETDecoder"]["max_ongoing_requests"] = 1
    options["Embedder"] |= NARROW | {"user_config": {"max_batch_size": 1, "batch_wait_timeout_s": 0.0}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "application_options", lambda: whole)
        patch.setattr(app, "deployment_options", lambda: options)
        with app.running(config, port=0) as url:
            yield url


@pytest.fixture(scope="module")
def client(url):
    headers = {"Authorization": "Bearer first"}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="module")
def ours(url):
    with Client(url, api_key="first", timeout_s=PATIENCE_S) as client:
        yield client


def stream(client, body, path="/v1/decode"):
    """Name and data of each event, as they come."""
    with client.stream("POST", path, json=body | {"stream": True}) as response:
        for line in response.iter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                yield name, json.loads(value)


def test_a_text_comes_back_through_both_routes(client):
    embedder = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="first")
    answer = embedder.embeddings.create(input=PHRASES, model=TEACHER.name)
    rows = np.array([entry.embedding for entry in answer.data], np.float32)
    assert np.array_equal(rows, TEACHER.encode(PHRASES))
    decoded = client.post("/v1/decode", json={"embeddings": rows.tolist(), "method": "greedy"}).json()
    assert [result["candidates"][0]["phrase"] for result in decoded["results"]] == PHRASES


def test_a_replica_that_was_given_no_gpu_sees_none(url):
    class Looker:
        def describe(self):
            return {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all")}

    deployment = serve.deployment(WorkerReplica, name="Looker", ray_actor_options={"num_cpus": 0.05})
    handle = serve.run(deployment.bind(Looker), name="looker", route_prefix=None)
    assert handle.describe.remote().result() == {"gpus": ""}
    serve.delete("looker")


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


def test_the_deployments_of_the_graph_are_those_of_the_configuration(client):
    running = app.serve.status().applications[app.NAME].deployments
    assert set(running) == set(app.deployment_options())
    assert set(client.get("/readyz").json()["stages"]) == set(running) - {"Gateway"}
    assert set(client.get("/v1/stats").json()["stages"]) == set(running) - {"Gateway"}


def test_every_mode_generates(client):
    for mode in ("direct", "hybrid", "text_to_text"):
        answer = client.post("/v1/generate", json={"texts": PHRASES[:2], "mode": mode}).json()
        assert (answer["mode"], len(answer["results"])) == (mode, 2)
        assert (answer["lattice"] is None) == (answer["timings"]["process_ms"] is None)


def test_texts_of_text_to_text_come_as_they_are_written(client):
    body = {"texts": PHRASES[:1], "mode": "text_to_text", "max_length": 30}
    *increments, (name, answer) = stream(client, body, "/v1/generate")
    assert name == "result"
    assert "".join(data["text"] for _, data in increments) == answer["results"][0]["text"]


def test_states_of_the_cells_are_small_arrays(client):
    body = client.post("/v1/lattice/states", json={"texts": PHRASES[:1]}).json()
    assert np.shape(body["states"]) == (1, 4, 3, 2, 2)


def stages_that_logged(folder, request_id):
    """The deployments whose log names the request."""
    lines = [line for file in folder.glob("**/*.log") for line in file.read_text().splitlines()]
    objects = [json.loads(line) for line in lines if request_id in line]
    named = [one for one in objects if request_id in one.get("request_id", "").split(",")]
    return {one["deployment"].removeprefix(f"{app.NAME}_") for one in named}


def test_a_request_is_named_in_the_logs_of_every_stage_that_it_met(client, folder):
    """Hybrid asks the Embedder itself: the id goes along, also where requests were joined."""

    def decode(number):
        body = {"texts": [PHRASES[number % 4]], "decoder": "hybrid"}
        return client.post("/v1/decode", json=body, headers={"X-Request-ID": f"request-{number}"})

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


def test_a_refused_request_has_its_id_in_the_problem(client):
    made = client.get("/nowhere")
    assert made.json()["instance"] == made.headers["x-request-id"]
    assert client.get("/nowhere", headers={"X-Request-ID": "x" * 129}).status_code == 400


def test_keys_are_asked_for_and_rotated_while_it_serves(url, folder):
    with Client(url, timeout_s=PATIENCE_S) as stranger, pytest.raises(APIError, match="401"):
        stranger.models()
    assert httpx.get(f"{url}/healthz", timeout=PATIENCE_S).is_success
    with (folder / "keys").open("a") as file:
        file.write(key_line("second", "a late test"))
    with Client(url, api_key="second", timeout_s=PATIENCE_S) as client:
        assert client.models().data


def test_the_client_has_what_is_served(ours):
    vectors = ours.embeddings(PHRASES)
    assert (vectors == TEACHER.encode(PHRASES)).all()
    answer = ours.decode(vectors, method="greedy")
    assert [result.text for result in answer.results] == PHRASES
    *parts, last = ours.stream(vectors[:1], decoder="ret", max_length=20)
    assert "".join(part.text for part in parts) == last.results[0].text
    assert set(ours.stats().stages) == set(app.deployment_options()) - {"Gateway"}


def test_a_damaged_body_is_never_a_failure_of_the_server(url, folder):
    """The hundreds of `benchmarks/fuzz_serve.py`; it sends ten thousand where it is told to."""
    statuses, failures = asyncio.run(FUZZ["send_all"](url, count=100, seed=2, at_once=2, key="first"))
    assert failures == 0
    assert set(statuses) <= {200, 400, 404, 413, 422}


def kill_replica(deployment):
    """End one replica's process; Ray Serve starts another."""
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    name = next(name for name in names if f"#{deployment}#" in name)
    ray.kill(ray.get_actor(name, namespace="serve"))


def test_a_session_outlives_the_replicas_that_answer_it(client, bank):
    said = ["two dogs waits near a fire", "The owl sings", "bees by the gate", "cat on the river"]
    decoder = decoders.PhraseBankDecoder()
    decoder.load_phrase_bank(bank)
    answers = []
    for number, text in enumerate(said):
        body = {"texts": [text], "session_id": "talk"}
        answers += client.post("/v1/decode", json=body).json()["results"]
        if number == 1:
            kill_replica("PhraseBankDecoder")
            kill_replica("SessionStore")
    expected = decoder.batch_decode_with_sessions(TEACHER.encode(said))
    assert [answer["text"] for answer in answers] == expected


def test_a_bank_is_swapped_under_load_and_no_request_fails(client, other_bank):
    stop = threading.Event()

    def ask():
        versions = []
        while not stop.is_set():
            answer = client.post("/v1/decode", json={"embeddings": ROWS, "bank": "other", "top_k": 1})
            assert answer.is_success, answer.text
            (result,) = answer.json()["results"]
            versions.append((answer.json()["bank"]["version"], result["candidates"][0]["phrase"]))
            if versions[-1][0] == "v000002":
                break
        return versions

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        create_bank(other_bank, ["new"], TEACHER)
        answers = [answer for one in asking for answer in one.result(timeout=60)]
        stop.set()
    assert set(answers) == {("v000001", "old"), ("v000002", "new")}


def test_a_taken_port_is_one_clear_line(client, bank):
    with (
        pytest.raises(CellularError, match="cannot listen on"),
        app.running(ServeConfig(banks={"main": bank}), port=client.base_url.port),
    ):
        pass
