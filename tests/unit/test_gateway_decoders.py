"""The decoders through the HTTP interface: their options, and texts that are sent while they are written."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest

from cellular.teachers import HashTeacher
from serve.gateway import Gateway
from serve.interface import http_app
from serve.settings import Interface, ServeConfig
from serve.stages import OverloadedError, UnavailableError


def events(body):
    """Name and data of each server-sent event."""
    blocks = [block.split("\n") for block in body.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def texts(response):
    return [result["text"] for result in response.json()["results"]]


def ask(**options):
    return {"json": {"texts": ["two dogs", "the owl sleeps"], "decoder": "ret", "max_length": 20} | options}


@pytest.fixture
def only_ret(gateway):
    """A gateway without a bank."""
    stages = {name: gateway.stages[name] for name in ("Embedder", "RETDecoder")}
    alone = Gateway(stages, ServeConfig(limits=gateway.limits))
    asyncio.run(alone.start())
    return alone


def test_ret_answers_with_what_the_decoder_writes(gateway, send):
    response = send("POST", "/v1/decode", **ask())
    rows = HashTeacher(384).encode(["two dogs", "the owl sleeps"])
    assert texts(response) == gateway.stages["RETDecoder"].replica.decoder.decode_batch(rows, max_length=20)
    assert response.json()["decoder"] == "ret"
    assert response.json()["bank"] is None
    assert response.json()["results"][0]["alternatives"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_decode_reads_what_its_lattice_makes_of_the_embeddings(send, stream):
    rows = HashTeacher(384).encode(["two dogs", "the owl sleeps"]).tolist()
    processed = send("POST", "/v1/process", json={"embeddings": rows, "lattice": "lattice"}).json()["data"]
    options = {"decoder": "ret", "max_length": 20}
    by_hand = {"embeddings": [one["embedding"] for one in processed], **options}
    response = send(
        "POST", "/v1/decode", json={"embeddings": rows, "lattice": "lattice", "stream": stream, **options}
    )
    answer = events(response.text)[-1][1] if stream else response.json()
    expected = send("POST", "/v1/decode", json=by_hand).json()
    assert [one["text"] for one in answer["results"]] == [one["text"] for one in expected["results"]]
    assert (answer["lattice"], expected["lattice"]) == ("lattice", None)
    assert answer["timings"]["process_ms"] > 0


def test_a_lattice_that_is_not_served_is_named_with_those_that_are(send):
    refused = send("POST", "/v1/decode", **ask(lattice="psychic"))
    assert refused.status_code == 404
    assert "there is lattice, reply" in refused.json()["detail"]


def test_ret_answers_where_no_bank_is_served(only_ret):
    assert next(iter(only_ret.flow.served)) == "ret"


@pytest.mark.parametrize("options", [{"n": 3}, {"beam": 4, "n": 3}, {"temperature": 1.2, "n": 3}])
def test_alternatives_come_likeliest_first(send, options):
    for result in send("POST", "/v1/decode", **ask(**options)).json()["results"]:
        scores = [one["log_probability"] for one in result["alternatives"]]
        assert scores == sorted(scores, reverse=True)
        assert 1 <= len(scores) <= 3
        assert result["alternatives"][0]["text"] == result["text"]


def test_a_seed_repeats_a_draw_and_another_makes_a_new_one(send):
    first, again, other = (
        texts(send("POST", "/v1/decode", **ask(temperature=1.5, top_p=1.0, seed=seed))) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_temperature_zero_takes_the_likeliest_pieces(send):
    assert texts(send("POST", "/v1/decode", **ask(temperature=0))) == texts(
        send("POST", "/v1/decode", **ask())
    )


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 7}])
def test_the_increments_of_a_stream_join_to_the_text_without_one(send, options):
    response = send("POST", "/v1/decode", **ask(stream=True, **options))
    assert response.headers["content-type"].startswith("text/event-stream")
    *increments, (last, answer) = events(response.text)
    assert last == "result"
    assert {name for name, _ in increments} == {"text"}
    plain = send("POST", "/v1/decode", **ask(**options))
    for index, text in enumerate(texts(plain)):
        assert "".join(data["text"] for _, data in increments if data["index"] == index) == text
    assert [result["text"] for result in answer["results"]] == texts(plain)
    assert answer.keys() == plain.json().keys()


@pytest.mark.parametrize("failure", [OverloadedError(), UnavailableError()])
def test_a_stream_that_cannot_start_is_refused_by_its_status(gateway, send, failure):
    gateway.stages["RETDecoder"].failure = failure
    response = send("POST", "/v1/decode", **ask(stream=True))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["status"] == 503


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [(UnavailableError(), 503, "unavailable"), (RuntimeError("secret"), 500, "internal_error")],
)
def test_a_failure_in_mid_stream_is_its_last_event(gateway, send, caplog, failure, status, code):
    def breaks(embeddings, options):
        yield 0, "two"
        raise failure

    gateway.stages["RETDecoder"].replica = SimpleNamespace(stream=breaks)
    response = send("POST", "/v1/decode", **ask(stream=True))
    (_, first), (name, problem) = events(response.text)
    assert first == {"index": 0, "text": "two"}
    assert (name, problem["status"], problem["code"]) == ("error", status, code)
    assert "secret" not in response.text


def test_a_stream_past_its_deadline_ends_with_an_error_and_its_work(gateway, send):
    def endless(embeddings, options):
        while True:
            yield 0, "again "

    gateway.stages["RETDecoder"].replica = SimpleNamespace(stream=endless)
    gateway.limits = gateway.limits.model_copy(update={"deadline_s": 0.2})
    *_, (name, problem) = events(send("POST", "/v1/decode", **ask(stream=True)).text)
    assert (name, problem["status"]) == ("error", 504)
    assert gateway.stages["RETDecoder"].calls == ["stream", "ended"]


def test_a_client_that_hangs_up_ends_the_work(gateway):
    written = []

    def endless(embeddings, options):
        while True:
            written.append("again ")
            yield 0, "again "

    gateway.stages["RETDecoder"].replica = SimpleNamespace(stream=endless)
    body = json.dumps(ask(stream=True)["json"]).encode()
    sent = asyncio.Event()

    async def receive():
        if receive.pending:
            return receive.pending.pop()
        await sent.wait()
        return {"type": "http.disconnect"}

    receive.pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def send(message):
        if message.get("body"):
            sent.set()

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/decode",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    asyncio.run(asyncio.wait_for(http_app(gateway, Interface())(scope, receive, send), timeout=10))
    assert gateway.stages["RETDecoder"].calls == ["stream", "ended"]
    assert written


def test_models_lists_what_is_served(send, phrases_bank, ret_checkpoint):
    models = send("GET", "/v1/models").json()["data"]
    kinds = {(model["kind"], model["id"]): model for model in models}
    assert set(kinds) == {
        ("teacher", "hash:384"),
        ("decoder", "phrase_bank"),
        ("decoder", "ret"),
        ("decoder", "hybrid"),
        ("bank", phrases_bank.name),
        ("checkpoint", ret_checkpoint.name),
        ("lattice", "lattice"),
        ("lattice", "reply"),
        ("adapter", "adapter"),
        ("checkpoint", "text-to-text"),
    }
    assert kinds["teacher", "hash:384"]["fingerprint"] == HashTeacher(384).fingerprint
    assert len(kinds["checkpoint", "noise"]["fingerprint"]) == 16


def test_hybrid_answers_within_the_teacher_calls_that_a_request_allows(send, phrases):
    for calls in (0, 3):
        body = {"texts": phrases[:2], "decoder": "hybrid", "max_teacher_calls": calls}
        response = send("POST", "/v1/decode", json=body).json()
        assert [result["text"] for result in response["results"]] == phrases[:2]
        assert all(result["teacher_calls"] <= calls for result in response["results"])
        assert response["bank"]["phrases"] == 48


def test_a_gateway_that_serves_not_every_decoder_says_which(gateway, send):
    gateway.flow.served.pop("hybrid")
    response = send("POST", "/v1/decode", json={"texts": ["a"], "decoder": "hybrid"})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "#/decoder")
    assert "phrase_bank, ret" in response.json()["detail"]


def test_embeddings_of_the_teachers_dimension_are_enough(only_ret, send):
    rows = np.eye(2, 384).tolist()
    response = send("POST", "/v1/decode", json={"embeddings": rows, "decoder": "ret", "max_length": 3})
    assert len(texts(response)) == 2
