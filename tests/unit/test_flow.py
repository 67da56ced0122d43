"""The way through the stages: lattices, the three pipelines, banks by name and sessions, without Ray."""

import asyncio
import base64
import json

import numpy as np
import pytest

from cellular.bank import create_bank
from cellular.lattice.inference import process
from cellular.teachers import HashTeacher
from serve.gateway import Gateway
from serve.settings import ServeConfig

UNUSUAL = "\U0001f989" * 100  # 12 pieces each, more than text to text reads
TEXTS = ["two dogs", "the owl sleeps"]


REPLY = {"texts": ["a"], "lattice": "reply"}


def vectors(response):
    return np.array([row["embedding"] for row in response.json()["data"]], np.float32)


def texts(response):
    return [result["text"] for result in response.json()["results"]]


@pytest.fixture
def lattice(gateway, lattice_checkpoint):
    return gateway.stages["Lattice"].replica.lattices[lattice_checkpoint.name].checkpoint.lattice


def test_processed_embeddings_are_those_of_the_lattice(gateway, send, lattice):
    rows = HashTeacher(384).encode(TEXTS)
    response = send("POST", "/v1/process", json={"texts": TEXTS})
    assert response.json()["lattice"] == "lattice"
    assert np.array_equal(vectors(response), process(lattice, rows))
    assert response.json()["timings"]["decode_ms"] is None
    gateway.stages["Embedder"].calls.clear()
    again = send("POST", "/v1/process", json={"embeddings": rows.tolist(), "encoding_format": "base64"})
    decoded = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in again.json()["data"]]
    assert np.array_equal(np.stack(decoded), process(lattice, rows))
    assert gateway.stages["Embedder"].calls == []


def test_earlier_turns_reach_a_lattice_that_reads_them(gateway, send):
    rows = HashTeacher(384).encode(["hello", *TEXTS])
    reply = gateway.stages["Lattice"].replica.lattices["reply"].checkpoint.lattice
    body = {"texts": TEXTS, "lattice": "reply", "earlier": [rows[:1].tolist(), []]}
    answer = vectors(send("POST", "/v1/process", json=body))
    assert np.allclose(answer, process(reply, rows[1:], [rows[:1], rows[:0]]), atol=1e-6)
    assert not np.allclose(answer[0], process(reply, rows[1:])[0], atol=1e-3)


def test_a_session_tells_a_lattice_its_turns(gateway, send, phrases):
    for text, method in (("hello", "process"), ("and you", "process_turns")):
        gateway.stages["Lattice"].calls.clear()
        send("POST", "/v1/generate", json={"texts": text, "lattice": "reply", "session_id": "talk"})
        assert gateway.stages["Lattice"].calls == [method]


def test_states_begin_at_the_input_face_and_end_where_the_lattice_does(send, lattice):
    states = np.array(send("POST", "/v1/lattice/states", json={"texts": TEXTS}).json()["states"])
    assert states.shape == (2, lattice.config.steps + 1, *lattice.config.size)
    assert (states[:, 0, 0] > 0).all()
    assert (states[:, 0, 1:] == 0).all()


def test_direct_generation_decodes_what_the_lattice_made(gateway, send, lattice):
    response = send("POST", "/v1/generate", json={"texts": TEXTS, "decoder": "ret", "max_length": 9})
    rows = process(lattice, HashTeacher(384).encode(TEXTS))
    assert texts(response) == gateway.stages["RETDecoder"].replica.decoder.decode_batch(rows, max_length=9)
    assert (response.json()["mode"], response.json()["lattice"]) == ("direct", "lattice")
    assert [gateway.stages[name].calls for name in ("Embedder", "Lattice", "RETDecoder")] == [
        ["encode"],
        ["process"],
        ["decode"],
    ]


def test_a_hybrid_generation_reads_another_teachers_embeddings(gateway, send, lattice):
    body = {"texts": TEXTS, "mode": "hybrid", "decoder": "ret", "max_length": 9}
    response = send("POST", "/v1/generate", json=body)
    rows = process(lattice, gateway.stages["Embedder"].replica.encode_adapted(TEXTS))
    assert texts(response) == gateway.stages["RETDecoder"].replica.decoder.decode_batch(rows, max_length=9)


def test_text_to_text_needs_no_embedding(gateway, send):
    body = {"texts": TEXTS, "mode": "text_to_text", "max_length": 9}
    response = send("POST", "/v1/generate", json=body)
    assert texts(response) == gateway.stages["TextToText"].replica.model.generate(TEXTS, 9)
    assert gateway.stages["Embedder"].calls == []
    streamed = send("POST", "/v1/generate", json=body | {"stream": True}).text
    assert json.loads(streamed.split("data: ")[-1])["results"] == response.json()["results"]


@pytest.mark.parametrize("mode", ["hybrid", "text_to_text"])
def test_a_mode_that_is_not_served_is_refused(gateway, send, mode):
    gateway.flow.adapter = None
    gateway.flow.stages = {name: gateway.stages[name] for name in ("Embedder", "RETDecoder")}
    response = send("POST", "/v1/generate", json={"texts": "a", "mode": mode})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "#/mode")


def test_one_text_needs_no_list_and_streams_as_it_is_written(send):
    body = {"texts": TEXTS[0], "decoder": "ret", "max_length": 9}
    plain = send("POST", "/v1/generate", json=body)
    streamed = send("POST", "/v1/generate", json=body | {"stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert f'"text":"{texts(plain)[0]}"'.encode() in streamed.content.replace(b"\\u0000", b"")


@pytest.mark.parametrize(
    ("path", "body", "status", "pointer"),
    [
        ("process", {"texts": ["a"], "lattice": "none"}, 404, "#/lattice"),
        ("process", {"texts": ["a"], "earlier": [[]]}, 422, "#/earlier"),
        ("process", REPLY | {"earlier": []}, 422, "#/earlier"),
        ("process", REPLY | {"earlier": [[[1.0]]]}, 422, "#/earlier/0/0"),
        ("process", REPLY | {"earlier": [[[0.0] * 384]]}, 422, "#/earlier/0"),
        ("process", REPLY | {"earlier": [[[0.0] * 384] * 9]}, 413, "#/earlier"),
        ("lattice/states", {"texts": ["a"] * 9}, 422, "#/texts"),
        ("generate", {"texts": []}, 422, "#/texts"),
        ("generate", {"texts": "a", "mode": "best"}, 422, "#/mode"),
        ("generate", {"texts": "a", "mode": "text_to_text", "task": "translate"}, 422, "#/task"),
        ("generate", {"texts": ["a", UNUSUAL], "mode": "text_to_text"}, 413, "#/texts/1"),
        ("generate", {"texts": UNUSUAL, "mode": "text_to_text", "stream": True}, 413, "#/texts/0"),
        ("generate", {"texts": "a", "mode": "text_to_text", "decoder": "ret"}, 422, "#/decoder"),
        ("generate", {"texts": "a", "mode": "text_to_text", "bank": "b"}, 422, "#/bank"),
        ("generate", {"texts": "a", "task": "translate"}, 422, "#/task"),
        ("generate", {"texts": ["a", "b"], "session_id": "s"}, 422, "#/session_id"),
        ("decode", {"texts": ["a"], "session_id": "no spaces"}, 422, "#/session_id"),
        ("decode", {"texts": ["a"], "decoder": "ret", "session_id": "s"}, 422, "#/session_id"),
        ("decode", {"texts": ["a"], "bank": "none"}, 404, "#/bank"),
        ("decode", {"texts": ["a"], "decoder": "ret", "bank": "b"}, 422, "#/bank"),
        ("decode", {"texts": ["a"], "explain": True}, 422, "#/explain"),
    ],
)
def test_what_is_not_served_or_does_not_go_together_is_refused(send, path, body, status, pointer):
    response = send("POST", f"/v1/{path}", json=body)
    assert response.status_code == status
    assert response.json()["errors"][0]["pointer"] == pointer


def test_hybrid_explains_what_it_chose_from(send, phrases):
    body = {"texts": phrases[:1], "decoder": "hybrid", "max_teacher_calls": 3, "explain": True}
    (result,) = send("POST", "/v1/decode", json=body).json()["results"]
    candidates = result["candidates"]
    nearest = [one["cosine"] for one in candidates if one["source"] == "bank"]
    assert nearest[0] == max(nearest) == pytest.approx(1, abs=1e-3)
    assert result["text"] in [one["text"] for one in candidates]
    (silent,) = send("POST", "/v1/decode", json=body | {"explain": False}).json()["results"]
    assert silent == result | {"candidates": []}


@pytest.fixture
def two_banks(gateway, tmp_path, phrases):
    """The gateway with the banks `first` and `second`."""
    for name, some in (("first", phrases[:24]), ("second", phrases[24:])):
        create_bank(tmp_path / name, some, HashTeacher(384))
    served = Gateway(gateway.stages, ServeConfig(banks=[str(tmp_path / "first"), str(tmp_path / "second")]))
    asyncio.run(served.start())
    gateway.flow.banks = served.flow.banks
    return served.flow.banks


def nearest(response):
    return response.json()["results"][0]["candidates"][0]["phrase"]


def test_a_request_is_answered_from_the_bank_that_it_names(two_banks, send, phrases):
    body = {"texts": [phrases[30]]}
    assert nearest(send("POST", "/v1/decode", json=body | {"bank": "second"})) == phrases[30]
    assert nearest(send("POST", "/v1/decode", json=body)) in phrases[:24]
    banks = [model["id"] for model in send("GET", "/v1/models").json()["data"] if model["kind"] == "bank"]
    assert banks == ["first", "second"]


def test_a_published_version_answers_and_one_that_cannot_be_served_does_not(
    two_banks, send, tmp_path, caplog
):
    async def followed():
        following = asyncio.create_task(two_banks.follow(0.01))
        async with asyncio.timeout(20):
            while two_banks["first"].version.version == "v000001":
                await asyncio.sleep(0)
            create_bank(tmp_path / "second", ["of another teacher"], HashTeacher())
            while "second stays" not in caplog.text:
                await asyncio.sleep(0)
        following.cancel()

    create_bank(tmp_path / "first", ["a new phrase"], HashTeacher(384))
    asyncio.run(followed())
    answer = send("POST", "/v1/decode", json={"texts": ["a new phrase"], "bank": "first"})
    assert (nearest(answer), answer.json()["bank"]["version"]) == ("a new phrase", "v000002")
    answer = send("POST", "/v1/decode", json={"texts": ["a"], "bank": "second"})
    assert answer.json()["bank"]["version"] == "v000001"


def say(send, text, session="s", **options):
    return texts(send("POST", "/v1/decode", json={"texts": [text], "session_id": session, **options}))[0]


def test_a_session_is_decoded_as_a_dialogue_is(gateway, send, phrases_bank, phrases):
    decoder = gateway.stages["PhraseBankDecoder"].replica.decoder(*gateway.flow.banks[None].version)
    said = ["two dogs waits near a fire", "The owl sings", "bees by the gate", "cat on the river"]
    rows = HashTeacher(384).encode(said)
    expected = decoder._decoder("context_aware").batch_decode_with_sessions(rows)
    assert [say(send, text) for text in said] == expected


def test_two_gateways_of_one_store_continue_one_session(gateway, send, phrases):
    other = Gateway(gateway.stages, gateway.config)
    asyncio.run(other.start())
    alone = [say(send, text, "alone") for text in phrases[:4]]
    first, second = gateway.flow.sessions, other.flow.sessions
    answers = []
    for number, text in enumerate(phrases[:4]):
        gateway.flow.sessions = (first, second)[number % 2]
        answers.append(say(send, text, "shared"))
    assert answers == alone
    assert len(first._known["shared"].turns) == 3  # it learns of the fourth when it is asked again


def test_a_session_takes_one_call_of_its_store(gateway, send, phrases):
    for text in phrases[:3]:
        gateway.stages["SessionStore"].calls.clear()
        say(send, text)
        assert gateway.stages["SessionStore"].calls == ["commit"]


def test_a_generation_remembers_what_was_said_and_what_was_answered(gateway, send, phrases):
    body = {"texts": phrases[0], "session_id": "talk"}
    answer = texts(send("POST", "/v1/generate", json=body))[0]
    turns = gateway.flow.sessions._known["talk"].turns
    assert [turn.text for turn in turns] == [phrases[0], answer]
