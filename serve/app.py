"""The application on Ray Serve: plain classes become deployments, and the graph is put together.

    Gateway ──encode──▶ Embedder              texts to embeddings
       └─────decode──▶ PhraseBankDecoder      embeddings to texts

The only module that imports Ray Serve. The options of each deployment are read from config.yaml.
"""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import ray
import yaml
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from actors.embedder import Embedder
from actors.phrase_bank_decoder import PhraseBankDecoder
from cellular.bank import PhraseBank
from cellular.config import DecodingConfig, TeacherConfig
from cellular.decoders import DecodeResult
from cellular.errors import CellularError
from cellular.teachers import load_teacher
from cellular.types import FloatArray
from serve.gateway import Gateway, OverloadedError, UnavailableError, http_app
from serve.settings import Limits, ServeConfig

NAME = "cellular"
ERROR_CLASS = f"{CellularError.__module__}.{CellularError.__name__}: "


def build(config: ServeConfig) -> serve.Application:
    """The graph. Raises CellularError where the bank is missing or another teacher's."""
    bank = PhraseBank.open(config.bank, version=config.version)
    teacher = teacher_of(bank, config.teacher)
    embedder = deployment(EmbedderReplica, "Embedder").bind(teacher)
    # The version is fixed here, so that a replica started later does not answer from a newer one.
    decoder = deployment(DecoderReplica, "PhraseBankDecoder").bind(
        config.bank.resolve(), bank.version, config.decoding
    )
    gateway: serve.Application = deployment(serve.ingress()(GatewayReplica), "Gateway").bind(
        embedder, decoder, config.limits
    )
    return gateway


def teacher_of(bank: PhraseBank, asked: TeacherConfig | None) -> TeacherConfig:
    """The teacher to run: the bank's, unless another name was asked for, which must be the same model."""
    made_by = bank.manifest.teacher.name
    if asked is not None and asked.name != made_by:
        bank.check_teacher(load_teacher(asked.model_copy(update={"device": "cpu"})).fingerprint)
    return asked or TeacherConfig(name=made_by)


def deployment(replica: type, name: str) -> serve.Deployment:
    """A plain class as a deployment, with its options from config.yaml."""
    return serve.deployment(name=name, **deployment_options()[name])(replica)


def deployment_options() -> dict[str, dict[str, Any]]:
    """Options by deployment, from config.yaml: its defaults also hold where no file is deployed."""
    application = yaml.safe_load(resources.files("serve").joinpath("config.yaml").read_text("utf-8"))
    entries = application["applications"][0]["deployments"]
    return {entry["name"]: {key: entry[key] for key in entry if key != "name"} for entry in entries}


class EmbedderReplica:
    """Embedder behind a queue: requests that wait at the same time are encoded together."""

    def __init__(self, teacher: TeacherConfig) -> None:
        self.embedder = Embedder(teacher)

    def reconfigure(self, batching: dict[str, float]) -> None:
        """Take over `user_config`, without a restart."""
        configure_batching(self.encode, batching)

    @serve.batch
    async def encode(self, requests: list[list[str]]) -> list[FloatArray]:
        """Embed the texts of several requests in one call."""
        texts = [text for request in requests for text in request]
        vectors = await asyncio.to_thread(self.embedder.encode, texts)
        return np.split(vectors, boundaries(requests))

    async def describe(self) -> dict[str, Any]:
        """The teacher's name, dimension and fingerprint."""
        teacher = self.embedder.teacher
        return {"name": teacher.name, "dimension": teacher.dimension, "fingerprint": teacher.fingerprint}


class DecoderReplica:
    """PhraseBankDecoder behind a queue: requests that wait at the same time are decoded together."""

    def __init__(self, bank: Path, version: str, config: DecodingConfig) -> None:
        self.decoder = PhraseBankDecoder(bank, version, config)

    def reconfigure(self, batching: dict[str, float]) -> None:
        """Take over `user_config`, without a restart."""
        configure_batching(self.decode_requests, batching)

    async def decode(self, embeddings: FloatArray, method: str | None) -> list[DecodeResult]:
        """Turn (N, D) embeddings into texts."""
        return await self.decode_requests((embeddings, method))

    @serve.batch
    async def decode_requests(
        self, requests: list[tuple[FloatArray, str | None]]
    ) -> list[list[DecodeResult]]:
        """Decode the rows of several requests, in one call for each method among them."""
        answers: dict[int, list[DecodeResult]] = {}
        for method in {method for _, method in requests}:
            chosen = [number for number, request in enumerate(requests) if request[1] == method]
            rows = np.concatenate([requests[number][0] for number in chosen])
            results = iter(await asyncio.to_thread(self.decoder.decode, rows, method))
            answers |= {number: list(islice(results, len(requests[number][0]))) for number in chosen}
        return [answers[number] for number in range(len(requests))]

    async def describe(self) -> dict[str, Any]:
        """The bank's version, size and teacher."""
        return self.decoder.describe()


class GatewayReplica(Gateway):
    """Gateway whose stages are deployments."""

    async def __init__(  # type: ignore[misc]
        self, embedder: DeploymentHandle[Any], decoder: DeploymentHandle[Any], limits: Limits
    ) -> None:
        super().__init__(HandleStage(embedder), HandleStage(decoder), limits)
        await self.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        return http_app(self)


class HandleStage:
    """A deployment's handle as the stage that a Gateway knows."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self.handle = handle

    async def call(self, method: str, *arguments: object) -> Any:
        """Await one call; a response is never handed on, which would pass by the limit on the queue."""
        response = getattr(self.handle, method).remote(*arguments)
        try:
            return await response
        except BackPressureError as error:
            raise OverloadedError from error
        except (RayServeException, RayActorError) as error:
            raise UnavailableError from error
        except asyncio.CancelledError:
            response.cancel()
            raise


def boundaries(requests: Sequence[Sequence[object]]) -> list[int]:
    """Where each request but the first starts in the joined rows."""
    return list(accumulate(len(request) for request in requests))[:-1]


def configure_batching(method: Any, batching: dict[str, float]) -> None:
    """Set how many requests a `serve.batch` method joins, and how long the first waits for the others."""
    method.set_max_batch_size(int(batching["max_batch_size"]))
    method.set_batch_wait_timeout_s(batching["batch_wait_timeout_s"])


@contextmanager
def running(config: ServeConfig, host: str = "127.0.0.1", port: int = 8000) -> Iterator[str]:
    """Serve from this machine until the block ends; yields the URL. Clusters use `serve deploy` instead.

    Args:
        config: what to serve.
        host: address to bind; only 127.0.0.1 keeps other machines out.
        port: 0 picks a free one.

    Raises:
        CellularError: the port is taken, or a stage cannot start.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    port = free_port(host, port)
    application = build(config)
    started_ray = not ray.is_initialized()
    if started_ray:
        start_ray()
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        try:
            serve.run(application, name=NAME)
        except RuntimeError as error:
            raise CellularError(start_failure()) from error
        yield f"http://{host}:{port}"
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        if started_ray:
            ray.shutdown()


def start_ray() -> None:
    """A Ray of this process' own, which leaves the caller's SIGTERM handler in place."""
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def free_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0."""
    try:
        with socket.create_server((host, port)) as server:
            return int(server.getsockname()[1])
    except OSError as error:
        raise CellularError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another port"
        ) from error


def start_failure() -> str:
    """What the replica that could not start said last; its whole traceback is in Serve's logs."""
    deployments = serve.status().applications[NAME].deployments
    failed = {name: one.message for name, one in deployments.items() if one.status == "DEPLOY_FAILED"}
    name, message = next(iter(failed.items()), (NAME, "see the logs"))
    return f"{name} did not start: {message.splitlines()[-1].removeprefix(ERROR_CLASS)}"
