"""The HTTP interface as one ASGI application: routes, what every request passes, the OpenAPI document.

`/docs` shows the document by scripts of a package: no other host is asked for anything.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.middleware.cors import CORSMiddleware

from cellular import __version__
from cellular.client.results import (
    Alive,
    DecodeResponse,
    EmbeddingsResponse,
    GenerateResponse,
    LatticeStates,
    ModelList,
    Problem,
    ProcessResponse,
    Readiness,
    Stats,
)
from serve import page
from serve.auth import ApiKeys, KeyRequired
from serve.gateway import Gateway
from serve.middleware import REQUEST_ID, Bodies, Crowd, RequestIds
from serve.problems import MEDIA_TYPE, add_problem_handlers
from serve.settings import Interface

OPEN_PATHS = ("/healthz", "/readyz", "/docs", "/docs/", "/openapi.json", *page.OPEN_PATHS)
REFERENCE = "#/components/schemas/{model}"

ANY = (400, 401, 500)  # of every route that needs a key
STAGE = (503, 504)  # of those that ask stages
BODY = (408, 413, 415, 422)  # of those that take a body


class Route(NamedTuple):
    """A line of the interface.

    Attributes:
        method: of HTTP.
        path: a path in OPEN_PATHS needs no key.
        endpoint: name of the Gateway's method.
        response: what it answers.
        refusals: statuses of the problem documents that it may answer instead.
        streams: whether server-sent events may come instead.
    """

    method: str
    path: str
    endpoint: str
    response: type[BaseModel]
    refusals: tuple[int, ...] = ()
    streams: bool = False


ROUTES = (
    Route("POST", "/v1/embeddings", "embeddings", EmbeddingsResponse, (*ANY, *BODY, *STAGE, 404)),
    Route("POST", "/v1/decode", "decode", DecodeResponse, (*ANY, *BODY, *STAGE, 404), streams=True),
    Route("POST", "/v1/process", "process", ProcessResponse, (*ANY, *BODY, *STAGE, 404)),
    Route("POST", "/v1/lattice/states", "lattice_states", LatticeStates, (*ANY, *BODY, *STAGE, 404)),
    Route("POST", "/v1/generate", "generate", GenerateResponse, (*ANY, *BODY, *STAGE, 404), streams=True),
    Route("GET", "/v1/models", "models", ModelList, ANY),
    Route("GET", "/v1/stats", "stats", Stats, (*ANY, *STAGE)),
    Route("GET", "/healthz", "health", Alive, (400, 500)),
    Route("GET", "/readyz", "ready", Readiness, (400, 500)),
)


def http_app(gateway: Gateway, interface: Interface) -> FastAPI:
    """The application that a Gateway's replica runs.

    Raises:
        CellularError: the file of API keys cannot be read.
    """
    app = FastAPIOffline(
        title="cellular",
        version=__version__,
        redoc_url=None,
        static_url="/docs/assets",
        swagger_ui_parameters={"validatorUrl": None},  # else swagger-ui asks its makers' host
    )
    for route in ROUTES:
        app.add_api_route(
            route.path,
            getattr(gateway, route.endpoint),
            methods=[route.method],
            response_model=route.response,
            responses=responses(route),
        )
    page.add_page(app)
    add_problem_handlers(app)
    keys = ApiKeys(interface.api_keys) if interface.api_keys is not None else None
    # The last that is added meets a request first.
    app.add_middleware(Bodies, limits=gateway.limits)
    app.add_middleware(Crowd, limits=gateway.limits)
    if keys is not None:
        app.add_middleware(KeyRequired, keys=keys, open_paths=OPEN_PATHS)
    app.add_middleware(RequestIds)
    if interface.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=interface.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
        )
    app.openapi = document(app, keys is not None)  # type: ignore[method-assign]
    return app


def responses(route: Route) -> dict[int | str, dict[str, Any]]:
    """What a route may answer, as its part of the OpenAPI document."""
    problem = {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(model=Problem.__name__)}}}
    declared: dict[int | str, dict[str, Any]] = {
        status: {"description": HTTPStatus(status).phrase, "content": problem} for status in route.refusals
    }
    if 503 in declared:
        wait = {"description": "seconds to wait", "schema": {"type": "integer"}}
        declared[503]["headers"] = {"Retry-After": wait}
    if route.path == "/readyz":
        declared[503] = {"model": route.response, "description": "a stage does not answer"}
    if route.streams:
        declared[200] = {
            "description": "with `stream`: events `text` as it is written, then `result` or `error`",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    return declared


def document(app: FastAPI, keys: bool) -> Callable[[], dict[str, Any]]:
    """What makes the OpenAPI document, once: FastAPI's, with problem documents and API keys."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            components = app.openapi_schema["components"]
            _, problems = models_json_schema([(Problem, "serialization")], ref_template=REFERENCE)
            components["schemas"] |= problems["$defs"]
            components["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
            for path, operations in app.openapi_schema["paths"].items():
                for operation in operations.values():
                    if keys and path not in OPEN_PATHS:
                        operation["security"] = [{"api_key": []}]
        return app.openapi_schema

    return openapi
