"""Server-sent events: a response that is written while its end is still being decoded."""

import logging
from collections.abc import AsyncIterator, Mapping

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from serve.problems import ProblemError, unexpected_problem

logger = logging.getLogger("ray.serve.cellular")


def event(name: str, content: Mapping[str, object]) -> bytes:
    """One event, with JSON as its data."""
    return format_sse_event(event=name, data_str=orjson.dumps(content).decode())


async def event_stream(events: AsyncIterator[bytes]) -> Response:
    """The response that sends `events`; a failure after the first of them becomes an event `error`.

    Raises:
        Exception: what the work raises before its first event, when a status can still tell it.
    """
    first = await anext(events)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_guarded(first, events), headers=headers, media_type="text/event-stream")


async def _guarded(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    try:
        async for one in events:
            yield one
    except ProblemError as error:
        yield event("error", error.document())
    except Exception as error:
        logger.exception("a stream failed", exc_info=error)
        yield event("error", unexpected_problem().document())
