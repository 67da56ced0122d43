"""The Python clients against the HTTP interface, over a real connection where one waits."""

import asyncio
import socket
import time
from contextlib import aclosing

import httpx
import numpy as np
import pytest

from cellular.client.calls import APIError, DecoderOptions, GenerateOptions, Increment, ProcessOptions
from cellular.client.clients import AsyncClient, Client
from cellular.client.results import DecodeResponse
from cellular.teachers import HashTeacher
from serve.auth import key_line
from serve.interface import http_app
from serve.schemas import DecodeRequest, GenerateRequest, ProcessRequest
from serve.settings import Interface
from serve.stages import OverloadedError, UnavailableError


@pytest.fixture
def client(url):
    with Client(url, retries=0) as client:
        yield client


def asked(gateway, ask, interface=Interface(), **options):
    """What a coroutine function does with an asynchronous client."""

    async def run():
        transport = httpx.ASGITransport(http_app(gateway, interface), raise_app_exceptions=False)
        async with AsyncClient("http://test", transport=transport, **options) as client:
            return await ask(client)

    return asyncio.run(run())


def test_vectors_are_the_teachers_to_the_last_bit(client, phrases):
    assert np.array_equal(client.embeddings(phrases[:8]), HashTeacher(384).encode(phrases[:8]))
    assert client.embeddings("a").shape == (1, 384)


def test_a_phrase_comes_back_from_its_embedding(client, phrases):
    vectors = client.embeddings(phrases[:2])
    answer = client.decode(vectors, method="greedy", top_k=1)
    assert [result.text for result in answer.results] == phrases[:2]
    assert client.decode(vectors[0], method="greedy").results[0].text == phrases[0]
    assert client.decode(texts=phrases[0], method="greedy").results[0].text == phrases[0]


def test_a_stream_gives_increments_and_then_the_answer(client):
    *parts, answer = client.stream(texts=["a", "b"], decoder="ret", max_length=20)
    assert isinstance(answer, DecodeResponse)
    for number, result in enumerate(answer.results):
        assert "".join(part.text for part in parts if part.index == number) == result.text


def test_what_is_served_is_listed(client):
    kinds = {model.kind for model in client.models().data}
    assert {"teacher", "decoder", "bank", "checkpoint"} <= kinds
    assert "Embedder" in client.stats().stages


def test_a_refusal_is_one_exception_with_the_problem(client):
    for refused in (
        lambda: client.decode(texts=["a"], top_k=0),
        lambda: list(client.stream(texts=["a"], top_k=0)),
    ):
        with pytest.raises(APIError, match="422 invalid_request: #/top_k") as caught:
            refused()
        assert caught.value.problem.errors[0].pointer == "#/top_k"
        assert caught.value.problem.instance


def test_a_failure_in_mid_stream_is_the_same_exception(client, gateway):
    async def breaks(method, *arguments):
        yield 0, "two"
        raise UnavailableError

    gateway.stages["RETDecoder"].stream = breaks
    events = client.stream(texts=["a"], decoder="ret")
    assert next(events) == Increment(index=0, text="two")
    with pytest.raises(APIError, match="503 unavailable"):
        next(events)


def test_no_server_is_the_same_exception_without_a_problem():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=0) as client, pytest.raises(APIError) as caught:
        client.models()
    assert caught.value.problem is None


def test_an_answer_that_is_no_problem_document_is_told_as_it_is():
    async def bare(scope, receive, send):
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"Request dropped"})

    async def run():
        async with AsyncClient("http://test", retries=0, transport=httpx.ASGITransport(bare)) as client:
            with pytest.raises(APIError, match="503 service_unavailable: Request dropped"):
                await client.models()

    asyncio.run(run())


def test_a_refused_request_is_sent_again_after_the_time_that_the_server_asks_for(gateway, phrases):
    stage, refusals = gateway.stages["PhraseBankDecoder"], iter([OverloadedError()])
    call = stage.call

    async def full_at_first(*arguments):
        if (refusal := next(refusals, None)) is not None:
            raise refusal
        return await call(*arguments)

    stage.call = full_at_first
    start = time.monotonic()
    answer = asked(gateway, lambda client: client.decode(texts=phrases[:1], method="greedy"))
    assert answer.results[0].text == phrases[0]
    assert time.monotonic() - start > 1


def test_retries_end(gateway):
    gateway.stages["PhraseBankDecoder"].failure = OverloadedError()
    with pytest.raises(APIError, match="503 overloaded"):
        asked(gateway, lambda client: client.decode(texts=["a"]), retries=0)


def test_the_asynchronous_client_does_the_same(gateway, phrases):
    async def ask(client):
        vectors = await client.embeddings(phrases[:2])
        answer = await client.decode(vectors, method="greedy")
        written = [part async for part in client.stream(texts=["a"], decoder="ret", max_length=5)]
        async with aclosing(client.stream(texts=["a"], decoder="ret")) as left:
            first = await anext(left)
        return [result.text for result in answer.results], written, first, (await client.models()).data

    texts, written, first, models = asked(gateway, ask)
    assert texts == phrases[:2]
    assert written[-1].results[0].text == "".join(part.text for part in written[:-1])
    assert isinstance(first, Increment)
    assert models


def test_a_key_is_sent(gateway, tmp_path):
    (tmp_path / "keys").write_text(key_line("right", "me"))
    interface = Interface(api_keys=tmp_path / "keys")
    assert asked(gateway, lambda client: client.models(), interface, api_key="right").data
    with pytest.raises(APIError, match="401"):
        asked(gateway, lambda client: client.models(), interface)


@pytest.mark.parametrize(
    ("options", "request_body", "arguments"),
    [
        (DecoderOptions, DecodeRequest, {"texts", "embeddings", "stream"}),
        (GenerateOptions, GenerateRequest, {"texts", "stream"}),
        (ProcessOptions, ProcessRequest, {"texts", "embeddings", "earlier", "encoding_format"}),
    ],
)
def test_the_clients_take_every_option_of_the_server(options, request_body, arguments):
    assert options.__annotations__.keys() | arguments == request_body.model_fields.keys()
