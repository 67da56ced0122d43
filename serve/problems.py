"""Errors of the HTTP interface: RFC 9457 problem documents, and the limit on bodies that keeps them few.

On /v1/embeddings a wrong body is 400, as OpenAI's API has it, and every document carries an `error` member
in OpenAI's shape: `openai` clients raise the exception that they would raise there.
"""

import logging
from collections.abc import Sequence
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPENAI_ROUTE = "/v1/embeddings"
logger = logging.getLogger("cellular.serve")


class ProblemError(HTTPException):
    """A request that is refused. `pointer` is a JSON pointer into the body, such as `/texts/3`."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else None
        super().__init__(status, detail, headers)
        self.code = code
        self.errors = [{"pointer": f"#{pointer}", "detail": detail}] if pointer is not None else []


def problem_content(
    status: int, code: str, detail: str, errors: Sequence[dict[str, str]] = ()
) -> dict[str, object]:
    """The members of a problem document."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": list(errors),
    }


def problem_response(
    request: Request,
    status: int,
    code: str,
    detail: str,
    errors: Sequence[dict[str, str]] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """The document that answers a refused request."""
    content = problem_content(status, code, detail, errors)
    if request.url.path == OPENAI_ROUTE:
        kind = "invalid_request_error" if status < 500 else "server_error"
        field = errors[0]["pointer"].partition("/")[2].split("/")[0] if errors else ""
        content["error"] = {"message": detail, "type": kind, "param": field or None, "code": code}
    return Response(orjson.dumps(content), status, headers, "application/problem+json")


def pointer_of(location: Sequence[str | int]) -> str:
    """pydantic's location, `("body", "texts", 3)`, as a JSON pointer's fragment, `#/texts/3` (RFC 6901)."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in location[1:])
    return "#" + "".join(f"/{step}" for step in steps)


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem document; none shows a stack trace."""

    @app.exception_handler(RequestValidationError)
    async def wrong_body(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return problem_response(request, 400, "invalid_json", "the body is not JSON")
        errors = [
            {"pointer": pointer_of(one["loc"]), "detail": str(one.get("ctx", {}).get("error", one["msg"]))}
            for one in error.errors()
        ]
        status = 400 if request.url.path == OPENAI_ROUTE else 422
        detail = f"{errors[0]['pointer']}: {errors[0]['detail']}"
        return problem_response(request, status, "invalid_request", detail, errors)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        code = getattr(error, "code", HTTPStatus(error.status_code).name.lower())
        errors = getattr(error, "errors", [])
        headers = dict(error.headers) if error.headers else None
        return problem_response(request, error.status_code, code, error.detail, errors, headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem_response(
            request, 500, "internal_error", "an unexpected failure; the log has the details"
        )


class BodyLimit:
    """ASGI middleware: a body over the limit is refused with 413, by its declared or its counted size."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting."""
        declared = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        received = int(declared) if declared.isdecimal() else 0
        counted = 0

        async def counting() -> Message:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if max(received, counted) > self.max_bytes:
                raise ProblemError(413, "body_too_large", f"the body exceeds {self.max_bytes} bytes")
            return message

        await self.app(scope, counting, send)
