"""What every request passes before a route sees it: its id, and what its body may be.

Ray Serve's proxy makes an id for a request that brings none, returns it as X-Request-ID and writes it on its
lines of the log. What is left to do here is to check the ids that clients send, and to keep them at hand.
"""

import asyncio
import re
from email.message import Message as MediaType
from functools import lru_cache
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import ProblemError, overloaded, problem_response, request_ids
from serve.settings import Limits

REQUEST_ID = "X-Request-ID"
VALID_ID = re.compile(r"[A-Za-z0-9._~=+-]{1,128}")


class RequestIds:
    """ASGI middleware: every request has an id; a wrong one is refused with 400.

    An id that was made here is returned as X-Request-ID; one that was sent is returned by who made it, which
    is Ray Serve's proxy or the client itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID)
        request_id = sent if sent is not None and VALID_ID.fullmatch(sent) else str(uuid4())
        # Never reset: what answers unexpected failures stands outside this middleware, and names the id too.
        request_ids.set((request_id,))

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start" and sent is None:
                MutableHeaders(scope=message).append(REQUEST_ID, request_id)
            await send(message)

        app = self.app if sent in (None, request_id) else problem_response(scope["path"], wrong_id())
        await app(scope, receive, with_id)


def wrong_id() -> ProblemError:
    """For an id that could not be written to a log as it is."""
    detail = f"{REQUEST_ID} takes up to 128 letters, digits and any of . _ ~ = + -"
    return ProblemError(400, "invalid_request_id", detail)


class Crowd:
    """ASGI middleware: refuses with 503 what comes while as many requests are answered as may be.

    Queues of stages alone would let a request wait for as many as all of them and their calls hold. Requests
    without a body cost nothing worth counting, and tell whether the Gateway lives.

    Args:
        app: what is behind it.
        limits: of the application.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
        elif self._number >= self.limits.max_requests:
            await problem_response(scope["path"], overloaded(self.limits))(scope, receive, send)
        else:
            self._number += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self._number -= 1


class Bodies:
    """ASGI middleware: refuses bodies that are no JSON by their type, too large, or too slow to come.

    413 is decided on the declared size, or on what was counted so far: no more than the limit is ever kept.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; what is refused is raised where the body is read."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = Body(Headers(scope=scope), receive, self.limits)
        await self.app(scope, body.receive, send)


class Body:
    """A body on its way in."""

    def __init__(self, headers: Headers, receive: Receive, limits: Limits) -> None:
        declared = headers.get("content-length", "")
        self.size = int(declared) if declared.isdecimal() else 0
        self.type = headers.get("content-type", "")
        self.limits = limits
        self.counted = 0
        self.complete = False
        self.until = asyncio.get_running_loop().time() + limits.deadline_s
        self._receive = receive

    async def receive(self) -> Message:
        """The next part. Raises ProblemError for a body that is not wanted."""
        if self.complete:  # what comes now is that the client left
            return await self._receive()
        self._check()
        try:
            async with asyncio.timeout_at(self.until):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body did not come within {self.limits.deadline_s:g} s"
            raise ProblemError(408, "request_timeout", detail) from None
        self.counted += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        self._check()
        return message

    def _check(self) -> None:
        if max(self.size, self.counted) > self.limits.max_body_bytes:
            detail = f"the body exceeds {self.limits.max_body_bytes} bytes"
            raise ProblemError(413, "body_too_large", detail)
        if max(self.size, self.counted) > 0 and not is_json(self.type):
            detail = "send JSON, with the header Content-Type: application/json"
            raise ProblemError(415, "unsupported_media_type", detail, headers={"Accept": "application/json"})


@lru_cache(64)
def is_json(content_type: str) -> bool:
    """Whether a Content-Type is JSON, as FastAPI reads it."""
    parsed = MediaType()
    parsed["content-type"] = content_type
    subtype = parsed.get_content_subtype()
    return parsed.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))
