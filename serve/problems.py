"""Errors of the HTTP interface: RFC 9457 problem documents, made in this one place.

On /v1/embeddings a wrong body is 400, as OpenAI's API has it, and every document carries an `error` member
in OpenAI's shape: `openai` clients raise the exception that they would raise there.
"""

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from serve.settings import Limits

MEDIA_TYPE = "application/problem+json"
OPENAI_ROUTE = "/v1/embeddings"
logger = logging.getLogger("ray.serve.cellular")  # goes into the replica's log, with the request's id

# The requests that the code at hand works for: one, or all those whose rows are joined into a call.
request_ids: ContextVar[tuple[str, ...]] = ContextVar("request_ids", default=())


class ProblemError(HTTPException):
    """A request that is refused.

    Args:
        status: of HTTP.
        code: names the kind of problem for programs.
        detail: one sentence for a person.
        pointer: JSON pointer into the body to the one field that is wrong, such as `/texts/3`.
        errors: of several fields; each has `pointer` and `detail`.
        headers: of the response.
        retry_after_s: seconds that the client should wait.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        errors: Sequence[dict[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        waiting = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
        detail = detail.encode(errors="replace").decode()  # JSON can say half a character, UTF-8 cannot
        super().__init__(status, detail, {**(headers or {}), **waiting})
        self.code = code
        self.errors = list(errors)
        if pointer is not None:
            self.errors = [{"pointer": f"#{pointer}", "detail": detail}]

    def document(self) -> dict[str, Any]:
        """The members of the problem document; `instance` is the request's id."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "detail": self.detail,
            "instance": ",".join(request_ids.get()) or None,
            "code": self.code,
            "errors": self.errors,
        }


def overloaded(limits: Limits) -> ProblemError:
    """What is told where more come than can be answered soon."""
    detail = "too many requests wait already"
    return ProblemError(503, "overloaded", detail, retry_after_s=limits.retry_after_s)


def unexpected_problem() -> ProblemError:
    """What is told of a failure that is nobody's but ours; the log has its trace."""
    return ProblemError(500, "internal_error", "an unexpected failure; the log has the details")


def problem_response(path: str, error: ProblemError) -> Response:
    """The response to a refused request for `path`."""
    content = error.document()
    if path == OPENAI_ROUTE:
        content["error"] = openai_error(error)
    return Response(orjson.dumps(content), error.status_code, error.headers, MEDIA_TYPE)


def openai_error(error: ProblemError) -> dict[str, str | None]:
    """The same in the shape that OpenAI's clients read."""
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    field = error.errors[0]["pointer"].partition("/")[2].split("/")[0] if error.errors else None
    return {"message": error.detail, "type": kind, "param": field or None, "code": error.code}


def pointer_of(location: Sequence[str | int]) -> str:
    """pydantic's location, `("body", "texts", 3)`, as a JSON pointer's fragment, `#/texts/3` (RFC 6901)."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in location[1:])
    return "#" + "".join(f"/{step}" for step in steps)


def wrong_body(path: str, error: RequestValidationError) -> ProblemError:
    """What pydantic found in a body."""
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        return ProblemError(400, "invalid_json", "the body is not JSON")
    errors = [
        {"pointer": pointer_of(one["loc"]), "detail": str(one.get("ctx", {}).get("error", one["msg"]))}
        for one in found
    ]
    status = 400 if path == OPENAI_ROUTE else 422
    detail = f"{errors[0]['pointer']}: {errors[0]['detail']}"
    return ProblemError(status, "invalid_request", detail, errors=errors)


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem document; none shows a stack trace."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return problem_response(request.url.path, wrong_body(request.url.path, error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if not isinstance(error, ProblemError):
            code = HTTPStatus(error.status_code).name.lower()
            error = ProblemError(error.status_code, code, error.detail, headers=error.headers)
        return problem_response(request.url.path, error)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem_response(request.url.path, unexpected_problem())
