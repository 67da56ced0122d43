"""The HTTP interface over plain objects: the same routes as the application's, without Ray."""

import asyncio

import httpx
import numpy as np
import openai
import pytest

from actors.embedder import Embedder
from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from serve.interface import ROUTES, http_app
from serve.settings import Interface
from serve.stages import OverloadedError, UnavailableError

DIMENSION, TEACHER = 384, "hash:384"


def test_a_phrase_comes_back_from_its_embedding(send, phrases, phrases_bank):
    embedded = send("POST", "/v1/embeddings", json={"input": phrases[:3], "model": TEACHER}).json()
    rows = [entry["embedding"] for entry in embedded["data"]]
    decoded = send("POST", "/v1/decode", json={"embeddings": rows, "method": "greedy", "top_k": 2}).json()
    assert [result["candidates"][0]["phrase"] for result in decoded["results"]] == phrases[:3]
    assert all(result["score"] > 0.999 and len(result["candidates"]) == 2 for result in decoded["results"])
    assert decoded["bank"] == {
        "name": phrases_bank.name,
        "version": "v000001",
        "phrases": 48,
        "dimension": DIMENSION,
        "teacher": TEACHER,
    }
    assert decoded["timings"]["embed_ms"] is None


def test_a_batch_makes_one_call_of_each_stage(gateway, send, phrases):
    response = send("POST", "/v1/decode", json={"texts": phrases[:8]})
    assert len(response.json()["results"]) == 8
    calls = {name: stage.calls for name, stage in gateway.stages.items() if stage.calls}
    assert calls == {"Embedder": ["encode"], "PhraseBankDecoder": ["decode"]}


def test_every_method_answers(send, phrases):
    for method in ("greedy", "weighted", "beam_search", "context_aware"):
        response = send("POST", "/v1/decode", json={"texts": phrases[:1], "method": method})
        assert response.json()["results"][0]["source"] == "bank"


def good_row():
    return [1.0] + [0.0] * (DIMENSION - 1)


RET, HYBRID = {"texts": ["a"], "decoder": "ret"}, {"texts": ["a"], "decoder": "hybrid"}
REFUSED = [
    ("/v1/decode", b"", 422, ""),
    ("/v1/decode", b"{", 400, ""),
    ("/v1/decode", b"\xff\xfe", 400, ""),
    ("/v1/decode", b"[" * 5000, 400, ""),
    ("/v1/decode", b"[]", 422, "#"),
    ("/v1/decode", b"null", 422, "#"),
    ("/v1/decode", {}, 422, "#"),
    ("/v1/decode", {"texts": []}, 422, "#/texts"),
    ("/v1/decode", {"texts": ["ok", 7]}, 422, "#/texts/1"),
    ("/v1/decode", b'{"texts": ["\\ud800"]}', 422, "#/texts/0"),
    ("/v1/decode", {"texts": ["a"], "embeddings": [good_row()]}, 422, "#"),
    ("/v1/decode", {"embeddings": [good_row(), good_row()[1:]]}, 422, "#/embeddings/1"),
    ("/v1/decode", {"embeddings": [[0.0] * DIMENSION]}, 422, "#/embeddings"),
    ("/v1/decode", {"embeddings": [[1e200] * DIMENSION]}, 422, "#/embeddings"),
    ("/v1/decode", {"embeddings": [["1"] * DIMENSION]}, 422, "#/embeddings/0/0"),
    ("/v1/decode", b'{"embeddings": [[NaN, 1.0]]}', 422, "#/embeddings/0/0"),
    ("/v1/decode", b'{"embeddings": [[1.0, -Infinity]]}', 422, "#/embeddings/0/1"),
    ("/v1/decode", b'{"embeddings": [[1e999]]}', 422, "#/embeddings/0/0"),
    ("/v1/decode", {"texts": ["a"], "top_k": 0}, 422, "#/top_k"),
    ("/v1/decode", {"texts": ["a"], "top_k": 1000}, 422, "#/top_k"),
    ("/v1/decode", {"texts": ["a"], "method": "best"}, 422, "#/method"),
    ("/v1/decode", {"texts": ["a"], "decoder": "best"}, 422, "#/decoder"),
    ("/v1/decode", {"texts": ["a"], "temperature": 0.5}, 422, "#/temperature"),
    ("/v1/decode", {"texts": ["a"], "stream": True}, 422, "#/stream"),
    ("/v1/decode", RET | {"method": "greedy"}, 422, "#/method"),
    ("/v1/decode", RET | {"temperature": -1}, 422, "#/temperature"),
    ("/v1/decode", b'{"texts": ["a"], "decoder": "ret", "temperature": NaN}', 422, "#/temperature"),
    ("/v1/decode", RET | {"top_p": 0.5}, 422, "#/top_p"),
    ("/v1/decode", RET | {"temperature": 1, "top_p": 0}, 422, "#/top_p"),
    ("/v1/decode", RET | {"seed": 3}, 422, "#/seed"),
    ("/v1/decode", RET | {"n": 5}, 422, "#/n"),
    ("/v1/decode", RET | {"n": True}, 422, "#/n"),
    ("/v1/decode", RET | {"beam": 2, "n": 3}, 422, "#/n"),
    ("/v1/decode", RET | {"beam": 2, "temperature": 1}, 422, "#/beam"),
    ("/v1/decode", RET | {"max_length": 1000}, 422, "#/max_length"),
    ("/v1/decode", RET | {"n": 2, "stream": True}, 422, "#/n"),
    ("/v1/decode", RET | {"stream": "yes"}, 422, "#/stream"),
    ("/v1/decode", RET | {"texts": ["a"] * 3, "n": 3}, 413, "#/n"),
    ("/v1/decode", RET | {"max_teacher_calls": 3}, 422, "#/max_teacher_calls"),
    (
        "/v1/decode",
        {"texts": ["a"], "decoder": "hybrid", "max_teacher_calls": -1},
        422,
        "#/max_teacher_calls",
    ),
    ("/v1/decode", {"texts": ["a"], "decoder": "hybrid", "max_teacher_calls": 9}, 422, "#/max_teacher_calls"),
    (
        "/v1/decode",
        {"texts": ["a"] * 2, "decoder": "hybrid", "max_teacher_calls": 5},
        413,
        "#/max_teacher_calls",
    ),
    ("/v1/decode", HYBRID | {"temperature": 1}, 422, "#/temperature"),
    ("/v1/decode", HYBRID | {"stream": True}, 422, "#/stream"),
    ("/v1/decode", {"texts": ["a"], "~odd/key": 1}, 422, "#/~0odd~1key"),
    ("/v1/decode", b'{"texts": ["a"], "\\ud800": 1}', 422, "#"),
    ("/v1/decode", {"texts": ["a"] * 9}, 413, "#/texts"),
    ("/v1/decode", {"embeddings": [good_row()] * 9}, 413, "#/embeddings"),
    ("/v1/decode", {"texts": ["a", "b" * 101]}, 413, "#/texts/1"),
    ("/v1/decode", b" " * 70_000, 413, ""),
    ("/v1/decode", b'{"texts": ["a"], "bank": "\\ud800"}', 422, "#/bank"),
    ("/v1/process", b'{"texts": ["a"], "lattice": "\\ud800"}', 422, "#/lattice"),
    ("/v1/embeddings", b"", 400, "#"),
    ("/v1/embeddings", b"[]", 400, "#"),
    ("/v1/embeddings", {"model": TEACHER}, 400, "#/input"),
    ("/v1/embeddings", {"input": [1, 2], "model": TEACHER}, 400, "#/input"),
    ("/v1/embeddings", {"input": "a", "model": TEACHER, "dimensions": 5}, 400, "#/dimensions"),
    ("/v1/embeddings", {"input": "a", "model": "gpt"}, 404, "#/model"),
    ("/v1/embeddings", {"input": ["a"] * 9, "model": TEACHER}, 413, "#/input"),
]


@pytest.mark.parametrize(("path", "body", "status", "pointer"), REFUSED)
def test_a_wrong_body_is_refused_with_a_problem_document(gateway, send, path, body, status, pointer):
    form = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = send("POST", path, headers={"Content-Type": "application/json"}, **form)
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"
    if pointer:
        assert problem["errors"][0]["pointer"] == pointer
    assert ("error" in problem) == (path == "/v1/embeddings")
    assert all(stage.calls == [] for stage in gateway.stages.values())


def test_a_body_without_a_declared_length_is_counted(send):
    async def pieces():
        for _ in range(70):
            yield b" " * 1000

    form = {"Content-Type": "application/json"}
    assert send("POST", "/v1/decode", content=pieces(), headers=form).status_code == 413


def test_unknown_routes_and_methods_are_problems_too(send):
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/v1/decode", 405)):
        response = send(method, path)
        assert response.json()["status"] == response.status_code == status


@pytest.mark.parametrize("failure", [OverloadedError(), UnavailableError()])
def test_a_full_or_lost_stage_is_503_and_says_when_to_come_back(gateway, send, failure):
    gateway.stages["PhraseBankDecoder"].failure = failure
    response = send("POST", "/v1/decode", json={"texts": ["a"]})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_a_late_answer_is_504(gateway, send):
    gateway.stages["PhraseBankDecoder"].failure = TimeoutError()
    assert send("POST", "/v1/decode", json={"texts": ["a"]}).status_code == 504


def test_an_unexpected_failure_shows_no_trace(gateway, send, caplog):
    gateway.stages["PhraseBankDecoder"].failure = RuntimeError("secret detail")
    response = send("POST", "/v1/decode", json={"texts": ["a"]})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("failure", "status", "state"),
    [(None, 200, "ready"), (OverloadedError(), 200, "busy"), (UnavailableError(), 503, "unavailable")],
)
def test_health_tells_the_state_of_each_stage(gateway, send, failure, status, state):
    gateway.stages["PhraseBankDecoder"].failure = failure
    response = send("GET", "/readyz")
    assert response.status_code == status
    assert response.json()["status"] == state
    assert response.json()["stages"] == {
        "Embedder": "ready",
        "PhraseBankDecoder": state,
        "RETDecoder": "ready",
        "HybridDecoder": "ready",
        "Lattice": "ready",
        "SessionStore": "ready",
        "TextToText": "ready",
    }


def test_another_teachers_bank_is_refused_at_the_start(gateway):
    gateway.stages["Embedder"].replica = Embedder(TeacherConfig(name="hash:128"))
    with pytest.raises(CellularError, match=r"hash:0000000200000180.*hash:0000000200000080"):
        asyncio.run(gateway.start())


def test_the_openai_client_reads_answers_and_raises_its_own_exceptions(gateway, phrases):
    async def run():
        transport = httpx.ASGITransport(http_app(gateway, Interface()), raise_app_exceptions=False)
        async with (
            httpx.AsyncClient(transport=transport) as http,
            openai.AsyncOpenAI(
                api_key="none", base_url="http://test/v1", http_client=http, max_retries=0
            ) as client,
        ):
            answer = await client.embeddings.create(input=phrases[:2], model=TEACHER)
            assert answer.usage.prompt_tokens == 13
            for arguments, expected in (
                ({"input": "a", "model": "gpt"}, openai.NotFoundError),
                ({"input": [1, 2], "model": TEACHER}, openai.BadRequestError),
            ):
                with pytest.raises(expected) as caught:
                    await client.embeddings.create(**arguments)
                assert caught.value.type == "invalid_request_error"
            gateway.stages["Embedder"].failure = OverloadedError()
            with pytest.raises(openai.InternalServerError):
                await client.embeddings.create(input="a", model=TEACHER)
        return np.array([entry.embedding for entry in answer.data], np.float32)

    assert np.array_equal(asyncio.run(run()), HashTeacher(DIMENSION).encode(phrases[:2]))


def test_the_openapi_document_describes_every_route(send):
    paths = send("GET", "/openapi.json").json()["paths"]
    assert set(paths) == {route.path for route in ROUTES}
