"""The application on Ray Serve: one start for the module, requests over loopback."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import httpx
import numpy as np
import openai
import pytest
import ray

from cellular import decoders
from cellular.bank import create_bank
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from serve import app
from serve.settings import ServeConfig

ANIMALS, VERBS = ("a cat", "two dogs", "the owl", "some bees"), ("sleeps", "waits", "sings")
PLACES = ("river", "old gate", "fire", "sea")
PHRASES = [f"{animal} {verb} by the {place}" for animal, verb, place in product(ANIMALS, VERBS, PLACES)]
TEACHER = HashTeacher(384)
ROWS = TEACHER.encode(["new"]).tolist()
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
def client(cluster, bank, other_bank, checkpoints, tmp_path_factory):
    sessions = {"file": tmp_path_factory.mktemp("sessions") / "file"}
    config = ServeConfig.model_validate(
        checkpoints
        | {"banks": {"main": bank, "other": other_bank}, "engine": "torch"}
        | {"sessions": sessions, "refresh_s": 0.1}
    )
    options = app.deployment_options()
    options["PhraseBankDecoder"] = {
        key: value for key, value in options["PhraseBankDecoder"].items() if key != "autoscaling_config"
    } | {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.05}}
    options["RETDecoder"]["max_ongoing_requests"] = 1
    options["Embedder"] |= NARROW | {"user_config": {"max_batch_size": 1, "batch_wait_timeout_s": 0.0}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "deployment_options", lambda: options)
        with (
            app.running(config, port=0) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
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
