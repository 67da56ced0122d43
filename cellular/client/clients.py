"""Clients of the HTTP interface, one that waits and one for asyncio.

Requests that were refused by a full queue, or lost with a connection or a replica, are sent again, after the
time that the server asks for.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar, Unpack

import httpx
from httpx_retries import Retry, RetryTransport
from httpx_sse import aconnect_sse, connect_sse
from numpy.typing import ArrayLike

from cellular.client.calls import (
    MODELS,
    STATS,
    APIError,
    Call,
    DecoderOptions,
    GenerateOptions,
    Increment,
    ProcessOptions,
    decode_call,
    embeddings_call,
    generate_call,
    process_call,
    refusal_of,
)
from cellular.client.results import DecodeResponse, GenerateResponse, ModelList, Stats
from cellular.types import FloatArray

URL = "http://127.0.0.1:8000"
RETRIED = (429, 500, 502, 503)  # 500 is also what Ray Serve's proxy answers for a replica that died
Answer = TypeVar("Answer")


class Client:
    """A client that waits for each answer.

    Args:
        url: where the application is served.
        api_key: one of its keys, if it asks for them.
        timeout_s: seconds without a byte after which a request fails.
        retries: how often a request that was refused or lost is sent again.
        transport: carries the requests, in place of a connection of its own.

    Every method raises APIError: refused, or no answer.
    """

    def __init__(
        self,
        url: str = URL,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        again = RetryTransport(transport or httpx.HTTPTransport(), retry_policy(retries))
        self._http = httpx.Client(base_url=url, headers=headers(api_key), timeout=timeout_s, transport=again)

    def embeddings(self, texts: str | Sequence[str]) -> FloatArray:
        """Embed texts with the server's teacher, (N, D) float32 of unit length."""
        return self._ask(embeddings_call(texts))

    def process(
        self,
        embeddings: ArrayLike | None = None,
        *,
        texts: str | Sequence[str] | None = None,
        earlier: Sequence[ArrayLike] | None = None,
        **options: Unpack[ProcessOptions],
    ) -> FloatArray:
        """Send embeddings, (N, D) or (D,), or those of texts, through a lattice: (N, D) float32.

        `earlier` has the (T, D) turns before each of them, oldest first.
        """
        return self._ask(process_call(texts, embeddings, earlier, options))

    def decode(
        self,
        embeddings: ArrayLike | None = None,
        *,
        texts: str | Sequence[str] | None = None,
        **options: Unpack[DecoderOptions],
    ) -> DecodeResponse:
        """Turn embeddings, (N, D) or (D,), or those of texts, into texts."""
        return self._ask(decode_call(texts, embeddings, options, stream=False))

    def stream(
        self,
        embeddings: ArrayLike | None = None,
        *,
        texts: str | Sequence[str] | None = None,
        **options: Unpack[DecoderOptions],
    ) -> Iterator[Increment | DecodeResponse]:
        """As `decode`: parts of the texts while they are written, then the whole answer.

        Leaving the loop ends the work on the server.
        """
        return self._events(decode_call(texts, embeddings, options, stream=True))

    def generate(self, texts: str | Sequence[str], **options: Unpack[GenerateOptions]) -> GenerateResponse:
        """Answer texts by one of the pipelines."""
        return self._ask(generate_call(texts, options, stream=False))

    def stream_generate(
        self, texts: str | Sequence[str], **options: Unpack[GenerateOptions]
    ) -> Iterator[Increment | GenerateResponse]:
        """As `generate`: parts of the texts while they are written, then the whole answer."""
        return self._events(generate_call(texts, options, stream=True))

    def models(self) -> ModelList:
        """Teachers, decoders, banks, checkpoints and lattices that are served."""
        return self._ask(MODELS)

    def stats(self) -> Stats:
        """What every stage has done since it started."""
        return self._ask(STATS)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, call: Call[Answer]) -> Answer:
        with connection_errors():
            response = self._http.request(call.method, call.path, content=call.content())
        if response.is_error:
            raise refusal_of(response)
        return call.read(response.content)

    def _events(self, call: Call[Answer]) -> Iterator[Increment | Answer]:
        with (
            connection_errors(),
            connect_sse(self._http, call.method, call.path, content=call.content()) as events,
        ):
            if events.response.is_error:
                events.response.read()
                raise refusal_of(events.response)
            for sent in events.iter_sse():
                yield call.event(sent)
                if sent.event == "result":
                    return
        raise APIError("the stream broke off before its end: ask again")


class AsyncClient:
    """Client for asyncio: the same arguments, methods and exceptions."""

    def __init__(
        self,
        url: str = URL,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        again = RetryTransport(transport or httpx.AsyncHTTPTransport(), retry_policy(retries))
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers(api_key), timeout=timeout_s, transport=again
        )

    async def embeddings(self, texts: str | Sequence[str]) -> FloatArray:
        """As `Client.embeddings`."""
        return await self._ask(embeddings_call(texts))

    async def process(
        self,
        embeddings: ArrayLike | None = None,
        *,
        texts: str | Sequence[str] | None = None,
        earlier: Sequence[ArrayLike] | None = None,
        **options: Unpack[ProcessOptions],
    ) -> FloatArray:
        """As `Client.process`."""
        return await self._ask(process_call(texts, embeddings, earlier, options))

    async def decode(
        self,
        embeddings: ArrayLike | None = None,
        *,
        texts: str | Sequence[str] | None = None,
        **options: Unpack[DecoderOptions],
    ) -> DecodeResponse:
        """As `Client.decode`."""
        return await self._ask(decode_call(texts, embeddings, options, stream=False))

    def stream(
        self,
        embeddings: ArrayLike | None = None,
        *,
        texts: str | Sequence[str] | None = None,
        **options: Unpack[DecoderOptions],
    ) -> AsyncIterator[Increment | DecodeResponse]:
        """As `Client.stream`; `contextlib.aclosing` ends the work when a loop is left early."""
        return self._events(decode_call(texts, embeddings, options, stream=True))

    async def generate(
        self, texts: str | Sequence[str], **options: Unpack[GenerateOptions]
    ) -> GenerateResponse:
        """As `Client.generate`."""
        return await self._ask(generate_call(texts, options, stream=False))

    def stream_generate(
        self, texts: str | Sequence[str], **options: Unpack[GenerateOptions]
    ) -> AsyncIterator[Increment | GenerateResponse]:
        """As `Client.stream_generate`."""
        return self._events(generate_call(texts, options, stream=True))

    async def models(self) -> ModelList:
        """As `Client.models`."""
        return await self._ask(MODELS)

    async def stats(self) -> Stats:
        """As `Client.stats`."""
        return await self._ask(STATS)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _ask(self, call: Call[Answer]) -> Answer:
        with connection_errors():
            response = await self._http.request(call.method, call.path, content=call.content())
        if response.is_error:
            raise refusal_of(response)
        return call.read(response.content)

    async def _events(self, call: Call[Answer]) -> AsyncIterator[Increment | Answer]:
        with connection_errors():
            async with aconnect_sse(self._http, call.method, call.path, content=call.content()) as events:
                if events.response.is_error:
                    await events.response.aread()
                    raise refusal_of(events.response)
                async for sent in events.aiter_sse():
                    yield call.event(sent)
                    if sent.event == "result":
                        return
        raise APIError("the stream broke off before its end: ask again")


def retry_policy(retries: int) -> Retry:
    """Every route may be asked twice. A timeout is not: who waited that long should know."""
    return Retry(
        total=retries,
        allowed_methods=("GET", "POST"),
        status_forcelist=RETRIED,
        retry_on_exceptions=(httpx.NetworkError, httpx.RemoteProtocolError),
        backoff_factor=0.25,
    )


def headers(api_key: str | None) -> dict[str, str]:
    """Of every request."""
    key = {"Authorization": f"Bearer {api_key}"} if api_key is not None else {}
    return {"Content-Type": "application/json"} | key


@contextmanager
def connection_errors() -> Iterator[None]:
    """The ways in which no answer came as the one exception of this package."""
    try:
        yield
    except httpx.TransportError as error:
        raise APIError(f"no answer: {error or type(error).__name__}") from error
