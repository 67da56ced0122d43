"""Server-sent events: a response that is written while its end is still being decoded."""

import logging
from collections.abc import AsyncIterator, Mapping

import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from serve.problems import ProblemError, problem_content

logger = logging.getLogger("cellular.serve")


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
        yield event("error", problem_content(error.status_code, error.code, error.detail, error.errors))
    except Exception as error:
        logger.exception("a stream failed", exc_info=error)
        detail = "an unexpected failure; the log has the details"
        yield event("error", problem_content(500, "internal_error", detail))
