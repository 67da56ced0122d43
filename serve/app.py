"""The application on Ray Serve: plain classes become deployments, and the graph is put together.

    Gateway ──encode───▶ Embedder            texts to embeddings
       ├──────process──▶ Lattice             embeddings to embeddings
       ├──────decode───▶ PhraseBankDecoder   embeddings to texts, by search and assembly
       ├──────decode───▶ RETDecoder          embeddings to texts, piece by piece
       ├──────decode───▶ HybridDecoder       embeddings to texts, the best of both
       │                    └──encode──▶ Embedder
       ├──────generate─▶ TextToText          texts to texts
       └──────commit───▶ SessionStore        what dialogues said

The options of each deployment are read from config.yaml; the classes are in `replicas`.
"""

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib import resources
from typing import Any

import ray
import yaml
from ray import serve
from ray.exceptions import RayError

from actors.adapted_embedder import AdaptedEmbedder
from actors.embedder import Embedder
from actors.hybrid_decoder import HybridDecoder
from actors.lattice import Lattice
from actors.phrase_bank_decoder import PhraseBankDecoder
from actors.ret_decoder import RETDecoder
from actors.session_store import SessionStore
from actors.text_to_text import TextToText
from cellular.errors import CellularError
from serve.contents import Contents, resolve
from serve.replicas import (
    BankReplica,
    EmbedderReplica,
    FusedReplica,
    GatewayReplica,
    HybridReplica,
    LatticeReplica,
    Part,
    RETReplica,
    SessionStoreReplica,
    TextToTextReplica,
)
from serve.settings import ServeConfig

NAME = "cellular"
SHUTDOWN_S = 30.0  # as Ray Serve's own
Options = dict[str, Any]
ERROR_CLASS = f"{CellularError.__module__}.{CellularError.__name__}: "


def build(config: ServeConfig) -> serve.Application:
    """The application. Raises CellularError where what it serves is missing, or of different teachers."""
    parts, options = graph(resolve(config), config), deployment_options()
    if config.fused:
        fused, options["Gateway"] = fuse(parts, options)
        return bound(fused, "Gateway", {}, options)
    deployed: dict[str, serve.Application] = {}
    for name, part in parts.items():
        deployed[name] = bound(part, name, deployed, options)
    return deployed["Gateway"]


def graph(contents: Contents, config: ServeConfig) -> dict[str, Part]:
    """What is served: each part after those that it calls."""
    ret = (RETDecoder, contents.checkpoint, config.engine, config.precision)
    adapted = (AdaptedEmbedder, contents.adapter) if contents.adapter else None
    hybrid = (HybridDecoder, ret, config.effort, contents.space)
    sessions = (config.sessions.file, config.sessions.number, config.sessions.age_s)
    stages = {
        "Embedder": Part(EmbedderReplica, (Embedder, contents.teacher, adapted)),
        "Lattice": Part(LatticeReplica, (Lattice, contents.lattices)),
        "PhraseBankDecoder": Part(BankReplica, (PhraseBankDecoder, config.decoding)),
        "RETDecoder": Part(RETReplica, ret),
        "HybridDecoder": Part(HybridReplica, hybrid, calls=("Embedder",)),
        "TextToText": Part(TextToTextReplica, (TextToText, contents.text_to_text)),
        "SessionStore": Part(SessionStoreReplica, (SessionStore, *sessions)),
    }
    served = {name: part for name, part in stages.items() if name in ("Embedder", *contents.stages)}
    resolved = config.model_copy(update={"banks": contents.banks})
    return served | {"Gateway": Part(GatewayReplica, (resolved,), calls=tuple(served))}


def fuse(parts: Mapping[str, Part], options: Mapping[str, Options]) -> tuple[Part, Options]:
    """All parts in the Gateway's one replica, with what the Embedder's would have of the machine."""
    stages = {name: part for name, part in parts.items() if name != "Gateway"}
    fused = Part(FusedReplica, (stages, *parts["Gateway"].arguments))
    own = {key: value for key, value in options["Gateway"].items() if key != "autoscaling_config"}
    return fused, own | {"num_replicas": 1, "ray_actor_options": options["Embedder"]["ray_actor_options"]}


def bound(
    part: Part, name: str, deployed: Mapping[str, serve.Application], options: Mapping[str, Options]
) -> serve.Application:
    """A part as a deployment."""
    replica = serve.ingress()(part.replica) if name == "Gateway" else part.replica
    callees = ({callee: deployed[callee] for callee in part.calls},) if part.calls else ()
    deployment = serve.deployment(name=name, **options[name])(replica)
    application: serve.Application = deployment.bind(*part.arguments, *callees)
    return application


def __getattr__(name: str) -> serve.Application:
    """`serve.app:application` is what the package alone can serve; `serve build` takes no builder."""
    if name == "application":
        return build(ServeConfig())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def deployment_options() -> dict[str, Options]:
    """Options by deployment, from config.yaml: its defaults also hold where no file is deployed."""
    entries = application_options()["deployments"]
    options = {entry["name"]: {key: entry[key] for key in entry if key != "name"} for entry in entries}
    return {"TextToText": options["RETDecoder"]} | options


def application_options() -> dict[str, Any]:
    """The application in config.yaml."""
    file = yaml.safe_load(resources.files("serve").joinpath("config.yaml").read_text("utf-8"))
    options: dict[str, Any] = file["applications"][0]
    return options


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
            serve.run(application, name=NAME, logging_config=application_options()["logging_config"])
        except RuntimeError as error:
            raise CellularError(start_failure()) from error
        yield f"http://{host}:{port}"
    finally:
        try:
            shut_down()
        finally:
            if started_ray:
                ray.shutdown()


def start_ray() -> None:
    """A Ray of this process' own, which leaves the caller's SIGTERM handler in place.

    It is tried twice: Ray gives its agent 15 seconds (ray-project/ray#65983), few on a busy machine.

    Raises:
        CellularError: it does not start.
    """
    handler = signal.getsignal(signal.SIGTERM)
    start = partial(
        ray.init, "local", include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False
    )
    try:
        try:
            start()
        except Exception:
            start()
    except Exception as error:
        raise CellularError(f"Ray does not start: {error}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def shut_down() -> None:
    """End Ray Serve, without a word.

    `serve.shutdown` waits in a call that ends by the death of the controller, and Ray prints that as a failed
    task where it comes to it. So the controller is told by a call that returns, and watched until it is gone.
    """
    until = time.monotonic() + SHUTDOWN_S
    with suppress(ValueError, RayError):  # there is no controller, none any longer, or it does not answer
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        ray.get(controller.graceful_shutdown.remote(wait=False), timeout=SHUTDOWN_S)
        while time.monotonic() < until:
            ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
            time.sleep(0.05)
    serve.shutdown()  # type: ignore[no-untyped-call]


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
