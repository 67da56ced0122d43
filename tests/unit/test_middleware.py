"""What every request passes: its id, and what its body may be."""

import asyncio
import json

import pytest
from starlette.responses import Response

from serve.interface import http_app
from serve.middleware import Crowd
from serve.settings import Interface, Limits

JSON = {"Content-Type": "application/json"}


def test_a_request_without_an_id_gets_one_which_problems_name_too(send):
    one, other = (send("GET", "/nowhere") for _ in range(2))
    assert one.json()["instance"] == one.headers["x-request-id"] != other.headers["x-request-id"]


@pytest.mark.parametrize("id", ["a", "5f3-9._~=+", "x" * 128])
def test_an_id_that_is_sent_is_the_requests(send, id):
    assert send("GET", "/nowhere", headers={"X-Request-ID": id}).json()["instance"] == id


@pytest.mark.parametrize("id", ["", "x" * 129, "two words", "a,b", "<script>", "\xe9"])
def test_an_id_that_could_not_be_logged_as_it_is_is_refused(send, id):
    response = send("GET", "/v1/models", headers={"X-Request-ID": id.encode("latin-1")})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (400, "invalid_request_id")
    assert problem["instance"] not in ("", id)


def test_an_unexpected_failure_names_the_request(gateway, send):
    gateway.stages["PhraseBankDecoder"].failure = RuntimeError()
    headers = JSON | {"X-Request-ID": "mine"}
    assert send("POST", "/v1/decode", json={"texts": ["a"]}, headers=headers).json()["instance"] == "mine"


@pytest.mark.parametrize("form", [None, "text/plain", "multipart/form-data", "json", "a/b+json"])
def test_a_body_that_is_not_sent_as_json_is_415(send, form):
    headers = {"Content-Type": form} if form else {}
    response = send("POST", "/v1/decode", content=b'{"texts": ["a"]}', headers=headers)
    assert (response.status_code, response.headers["accept"]) == (415, "application/json")
    assert response.json()["code"] == "unsupported_media_type"


@pytest.mark.parametrize("form", ["application/json; charset=utf-8", "application/x+json"])
def test_every_form_of_json_is_read(send, form):
    body = b'{"texts": ["a"], "method": "greedy"}'
    assert send("POST", "/v1/decode", content=body, headers={"Content-Type": form}).status_code == 200


def received(gateway, headers, parts):
    """Status and document for a body in parts, and how many of them were read; the last never comes."""
    read, sent = [], []

    async def receive():
        if len(read) == len(parts):
            await asyncio.Event().wait()
        read.append(parts[len(read)])
        return {"type": "http.request", "body": read[-1], "more_body": True}

    async def send(message):
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/decode", "headers": raw, "query_string": b""}
    asyncio.run(asyncio.wait_for(http_app(gateway, Interface())(scope, receive, send), timeout=10))
    return sent[0]["status"], json.loads(sent[1]["body"]), len(read)


def test_a_declared_size_over_the_limit_is_refused_unread(gateway):
    status, problem, read = received(gateway, JSON | {"Content-Length": "70000"}, [b"x"] * 70)
    assert (status, problem["code"], read) == (413, "body_too_large", 0)


def test_a_size_over_the_limit_is_refused_as_soon_as_it_is_counted(gateway):
    status, problem, read = received(gateway, JSON, [b"x" * 30_000] * 70)
    assert (status, problem["code"], read) == (413, "body_too_large", 3)


def test_a_body_that_does_not_come_in_time_is_408(gateway):
    gateway.limits = gateway.limits.model_copy(update={"deadline_s": 0.1})
    status, problem, _ = received(gateway, JSON, [b'{"texts": ["a"'])
    assert (status, problem["code"]) == (408, "request_timeout")


def test_more_requests_than_can_be_answered_are_refused_at_once_and_health_is_not():
    limits, held, answers = Limits(max_requests=2), asyncio.Event(), []

    async def app(scope, receive, send):
        await held.wait()
        await Response()(scope, receive, send)

    async def ask(crowd, method="POST"):
        async def send(message):
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                answers.append((message["status"], headers.get(b"retry-after")))

        await crowd({"type": "http", "method": method, "path": "/v1/decode"}, None, send)

    async def crowded():
        crowd = Crowd(app, limits)
        waiting = [asyncio.create_task(ask(crowd)) for _ in range(2)]
        waiting.append(asyncio.create_task(ask(crowd, "GET")))
        await asyncio.sleep(0)
        await ask(crowd)
        assert answers == [(503, b"1")]
        held.set()
        await asyncio.gather(*waiting)
        await ask(crowd)

    asyncio.run(crowded())
    assert answers[1:] == [(200, None)] * 4
