"""What bench_serve.py sends its load to.

In a process without Ray, by itself:
    process   what a user would write: FastAPI + uvicorn with the same workers, a thread for each request
    gathered  the same process with the application's own Gateway, which joins requests
Side by side on one Ray Serve, each below a route of its name:
    graph     the application, with one replica of each stage
    scaled    the same with two Embedders and two RETDecoders
    fused     the same in one deployment
    noop      a deployment that answers at once
    chain     three deployments: each request calls two of them, one after the other, by their handles
"""

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import ray
import torch
import typer
import uvicorn
from fastapi import FastAPI, Response
from ray import serve
from ray.serve.handle import DeploymentHandle

from actors.decoding import RETOptions
from benchmarks.serve_load import sentences
from cellular.decoders.ret import RET, Checkpoint, RETConfig, TeacherInfo, Vocabulary, save_checkpoint
from cellular.teachers import HashTeacher
from serve import app
from serve.contents import resolve
from serve.gateway import Gateway, json_response
from serve.gathering import GatheringStage
from serve.interface import http_app
from serve.replicas import Part
from serve.schemas import DecodeRequest
from serve.settings import ServeConfig

CPUS = {"Gateway": 0.5, "Embedder": 1, "RETDecoder": 0.3}


def real() -> ServeConfig:
    """The default teacher and RET's default checkpoint."""
    return ServeConfig(stages=("RETDecoder",))


def light() -> ServeConfig:
    """Stages that take next to no time, so that what surrounds them shows."""
    teacher, folder = HashTeacher(384), Path(tempfile.mkdtemp()) / "noise"
    torch.manual_seed(0)
    info = TeacherInfo(name=teacher.name, fingerprint=teacher.fingerprint, dimension=teacher.dimension)
    save_checkpoint(folder, Checkpoint(RET(RETConfig(applications=1)), Vocabulary.load(), info))
    return ServeConfig(stages=("RETDecoder",), checkpoint=str(folder))


WORKS: dict[str, tuple[Callable[[], ServeConfig], int]] = {"real": (real, 64), "light": (light, 1)}


def parts(config: ServeConfig) -> dict[str, Part]:
    """What the application makes deployments of, without the Gateway."""
    stages = app.graph(resolve(config), config)
    return {name: stages[name] for name in ("Embedder", "RETDecoder")}


def workers(config: ServeConfig) -> list[Any]:
    """The Embedder and the RETDecoder that replicas hold."""
    return [part.replica(*part.arguments).worker for part in parts(config).values()]


def process_app(config: ServeConfig) -> FastAPI:
    """What a user would write."""
    embedder, decoder = workers(config)
    api = FastAPI()

    @api.post("/v1/decode")
    def decode(request: DecodeRequest) -> Response:
        vectors = embedder.encode(request.texts)
        results = decoder.decode(vectors, RETOptions(max_length=request.max_length))
        return json_response({"results": [{"text": result.text} for result in results]})

    return api


class ThreadStage:
    """A worker of this process as a stage of the Gateway."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    async def call(self, method: str, rows: Any, *options: Any) -> Any:
        """The method's result."""
        return await self.ask(method, rows, *options)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """The method's result."""
        return await asyncio.to_thread(getattr(self.worker, method), *arguments)

    async def every(self, method: str, *arguments: Any) -> list[Any]:
        """Of the one worker."""
        return [await self.ask(method, *arguments)]

    def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """Not measured."""
        raise NotImplementedError

    def replicas(self) -> int:
        """The one worker."""
        return 1


def gathered_app(config: ServeConfig) -> FastAPI:
    """The application's Gateway, without Ray."""
    stages = dict(zip(("Embedder", "RETDecoder"), map(ThreadStage, workers(config)), strict=True))
    gateway = Gateway(
        {name: GatheringStage(stage, config.gathering) for name, stage in stages.items()}, config
    )
    asyncio.run(gateway.start())
    return http_app(gateway, config.interface)


@contextmanager
def uvicorn_server(make: Callable[[ServeConfig], FastAPI], config: ServeConfig) -> Iterator[str]:
    """One process without Ray; it is ready when its port is."""
    port = app.free_port("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make(config), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


class Noop:
    """Answers at once."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = FastAPI()
        api.add_api_route("/v1/decode", self.decode, methods=["POST"])
        return api

    async def decode(self, request: DecodeRequest) -> Response:
        """Nothing."""
        return json_response({"results": []})


class Link:
    """A worker's method behind a handle."""

    def __init__(self, part: Part, method: str) -> None:
        self.method = getattr(part.replica(*part.arguments).worker, method)

    def call(self, *arguments: Any) -> Any:
        """The method's result."""
        return self.method(*arguments)


class Chain(Noop):
    """Calls one handle after the other, for each request."""

    def __init__(self, embedder: DeploymentHandle[Any], decoder: DeploymentHandle[Any]) -> None:
        self.embedder, self.decoder = embedder, decoder

    async def decode(self, request: DecodeRequest) -> Response:
        """Embed, then decode."""
        vectors = await self.embedder.call.remote(request.texts)
        results = await self.decoder.call.remote(vectors, RETOptions(max_length=request.max_length))
        return json_response({"results": [{"text": result.text} for result in results]})


def front(gateway: type) -> serve.Deployment:
    """What HTTP requests reach."""
    options = {"ray_actor_options": {"num_cpus": CPUS["Gateway"]}, "max_ongoing_requests": 128}
    return serve.deployment(name="Gateway", **options)(serve.ingress()(gateway))


def noop(config: ServeConfig) -> serve.Application:
    """One deployment."""
    return front(Noop).bind()


def chain(config: ServeConfig) -> serve.Application:
    """Three deployments."""
    links = []
    for (name, part), method in zip(parts(config).items(), ("encode", "decode"), strict=True):
        options = {"name": name, "ray_actor_options": {"num_cpus": CPUS[name]}, "max_ongoing_requests": 128}
        links.append(serve.deployment(**options)(Link).bind(part, method))
    return front(Chain).bind(*links)


def graph(config: ServeConfig) -> serve.Application:
    """The application."""
    return app.build(config)


def scaled(config: ServeConfig) -> serve.Application:
    """The application with two replicas of the stages that compute."""
    options = dict(app.deployment_options())
    options |= {name: options[name] | {"num_replicas": 2} for name in ("Embedder", "RETDecoder")}
    with patch.object(app, "deployment_options", lambda: options):
        return app.build(config)


def fused(config: ServeConfig) -> serve.Application:
    """The application in one deployment."""
    return app.build(config.model_copy(update={"fused": True}))


PROCESSES: dict[str, Callable[[ServeConfig], FastAPI]] = {"process": process_app, "gathered": gathered_app}
APPLICATIONS: dict[str, Callable[[ServeConfig], serve.Application]] = {
    "graph": graph,
    "scaled": scaled,
    "fused": fused,
    "noop": noop,
    "chain": chain,
}


@contextmanager
def ray_server(names: Sequence[str], config: ServeConfig) -> Iterator[str]:
    """Applications side by side: those that are not asked cost next to nothing."""
    options = app.deployment_options()
    for name, one in options.items():
        one.pop("autoscaling_config", None)
        one |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": CPUS.get(name, 0.1)}}
    app.deployment_options = lambda: options  # for this process' applications
    ray.init(address="local", num_cpus=16, include_dashboard=False, log_to_driver=False)
    port = app.free_port("127.0.0.1", 0)
    serve.start(proxy_location="HeadOnly", http_options={"port": port})
    for name in names:
        serve.run(APPLICATIONS[name](config), name=name, route_prefix=f"/{name}")
    yield f"http://127.0.0.1:{port}"
    app.shut_down()
    ray.shutdown()


def own_time(work: str) -> float:
    """Milliseconds of the workers alone for a text, the median."""
    make, length = WORKS[work]
    embedder, decoder = workers(make())
    times = []
    for text in sentences(60):
        start = time.perf_counter()
        decoder.decode(embedder.encode([text]), RETOptions(max_length=length))
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def main(
    names: Annotated[str, typer.Argument(help="own, process, gathered, or applications such as graph,noop")],
    work: Annotated[str, typer.Argument(help=f"one of {', '.join(WORKS)}")] = "real",
    settings: Annotated[str, typer.Argument(help="of ServeConfig, as JSON")] = "{}",
) -> None:
    """Print the URL, and serve until standard input ends; or print the workers' own time."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if names == "own":
        print(own_time(work))
        return
    config = ServeConfig.model_validate(WORKS[work][0]().model_dump() | json.loads(settings))
    alone = PROCESSES.get(names)
    with uvicorn_server(alone, config) if alone else ray_server(names.split(","), config) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    typer.run(main)
