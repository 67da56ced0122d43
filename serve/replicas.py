"""What the deployments run: workers behind queues.

The worker's class is an argument: a replica imports its own and no other's libraries.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from actors.session_store import Commit
from cellular.types import FloatArray
from serve.gateway import Gateway
from serve.gathering import GatheringStage, Rows, divided, joined
from serve.handles import HandleStage, StageTeacher, named_requests
from serve.interface import http_app
from serve.metrics import MeasuredStage, WorkerMetrics, session_gauge
from serve.problems import request_ids
from serve.scaling import BusyTime
from serve.settings import ServeConfig
from serve.stages import BankVersion, LocalStage, OnBank, Stage

if TYPE_CHECKING:
    from cellular.adapter import Space
    from cellular.config import TeacherConfig

OPEN_BANKS = 32  # versions in one replica; they are mapped, so that an idle one takes no memory
Made = tuple[type, *tuple[Any, ...]]  # a class, and its arguments
Callees = Mapping[str, DeploymentHandle[Any] | Stage]


class Part(NamedTuple):
    """A stage of the application.

    Attributes:
        replica: the class that runs.
        arguments: of it.
        calls: names of the stages that it calls; it gets them as its last argument.
    """

    replica: type
    arguments: tuple[Any, ...]
    calls: tuple[str, ...] = ()


class Work(NamedTuple):
    """Rows, what is to be done with them, and the requests that they belong to."""

    method: Callable[..., Any]
    rows: Rows
    options: tuple[Any, ...]
    ids: tuple[str, ...]


class Replica:
    """Calls that wait at the same time are computed together, each method and set of options apart.

    Args:
        stage: the worker's name.
    """

    def __init__(self, stage: str) -> None:
        _leave_gpus_of_others()
        self.metrics = WorkerMetrics(stage)
        self.busy = BusyTime()
        self.done = Counter(calls=0, batches=0, rows=0)
        # A queue of its own: one that decorates the method would be one for all that are fused, and a stage
        # that calls another from its batch would wait for itself.
        self._batched = serve.batch(self._compute)

    def reconfigure(self, batching: dict[str, float]) -> None:
        """Take over `user_config`, without a restart."""
        self._batched.set_max_batch_size(int(batching["max_batch_size"]))  # type: ignore[attr-defined]
        self._batched.set_batch_wait_timeout_s(batching["batch_wait_timeout_s"])  # type: ignore[attr-defined]

    def join_nothing(self) -> None:
        """Take one call at a time, in place of a queue: for a caller in this process that joins its own."""
        lock = asyncio.Lock()

        async def alone(work: Work) -> Any:
            async with lock:
                return (await self._compute([work]))[0]

        self._batched = alone

    async def statistics(self) -> dict[str, int]:
        """Calls, batches and rows since the start."""
        return dict(self.done)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `serve.scaling.ByLoad` scales this stage by."""
        return {"load": self.busy.load()}

    async def compute(self, method: Callable[..., Any], rows: Rows, *options: Any) -> Any:
        """A worker's method on rows, with those of other calls that wait for the same."""
        return await self._batched(Work(method, rows, options, named_requests()))

    async def _compute(self, calls: list[Work]) -> list[Any]:
        answers: dict[int, Any] = {}
        for method, options in dict.fromkeys((call.method, call.options) for call in calls):
            chosen = [n for n, call in enumerate(calls) if (call.method, call.options) == (method, options)]
            parts = [calls[n].rows for n in chosen]
            rows = joined(parts)
            request_ids.set(tuple(id for n in chosen for id in calls[n].ids))
            with self.busy.work():
                results = await asyncio.to_thread(self.metrics.measured, method, rows, *options)
            answers |= zip(chosen, divided(results, parts), strict=True)
            self.done.update(calls=len(parts), batches=1, rows=len(rows))
        return [answers[n] for n in range(len(calls))]


class WorkerReplica(Replica):
    """One worker behind a queue."""

    def __init__(self, worker: type, *arguments: Any) -> None:
        super().__init__(worker.__name__)
        self.worker = worker(*arguments)

    async def describe(self) -> dict[str, Any]:
        """What it answers from."""
        described: dict[str, Any] = self.worker.describe()
        return described


class EmbedderReplica(WorkerReplica):
    """The teacher; and another one, through an adapter into its space, where mode hybrid is served."""

    def __init__(self, worker: type, teacher: "TeacherConfig", adapted: Made | None = None) -> None:
        super().__init__(worker, teacher)
        self.adapted = made(adapted) if adapted else None

    async def encode(self, texts: list[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        vectors: FloatArray = await self.compute(self.worker.encode, texts)
        return vectors

    async def encode_adapted(self, texts: list[str]) -> FloatArray:
        """Embed texts by the other teacher, (N, D) float32 of unit length in this one's space."""
        assert self.adapted is not None, "the Gateway knows that there is none"
        vectors: FloatArray = await self.compute(self.adapted.encode, texts)
        return vectors

    async def describe(self) -> dict[str, Any]:
        """The embedding space, and what leads there from another."""
        described = await super().describe()
        return described | {"adapter": self.adapted.describe()} if self.adapted else described


class LatticeReplica(Replica):
    """Lattices by name."""

    def __init__(self, worker: type, checkpoints: Mapping[str, str]) -> None:
        super().__init__(worker.__name__)
        self.workers = {name: worker(checkpoint) for name, checkpoint in checkpoints.items()}

    async def process(self, embeddings: FloatArray, lattice: str) -> FloatArray:
        """What a lattice makes of (N, E) embeddings."""
        made: FloatArray = await self.compute(self.workers[lattice].process, embeddings)
        return made

    async def process_turns(self, dialogues: list[FloatArray], lattice: str) -> FloatArray:
        """What a lattice makes of the last of each dialogue's (turns, E) embeddings."""
        made: FloatArray = await self.compute(self.workers[lattice].process_turns, dialogues)
        return made

    async def states(self, embeddings: FloatArray, lattice: str) -> list[FloatArray]:
        """Norms of the cells before the first step and after each, (T + 1, X, Y, Z) for each embedding."""
        norms: list[FloatArray] = await self.compute(self.workers[lattice].states, embeddings)
        return norms

    async def describe(self) -> dict[str, dict[str, Any]]:
        """What each of them is."""
        return {name: worker.describe() for name, worker in self.workers.items()}


class WriterReplica(WorkerReplica):
    """One that streams; streams are written beside the batches."""

    async def stream(self, rows: Rows, options: Any) -> AsyncGenerator[tuple[int, str]]:
        """Numbers of rows and increments of their texts; the work ends when the caller leaves."""
        increments = self.worker.stream(rows, options)
        with self.busy.work():
            while (increment := await asyncio.to_thread(next, increments, None)) is not None:
                yield increment


class RETReplica(WriterReplica):
    """RET."""

    async def decode(self, embeddings: FloatArray, options: Any) -> list[Any]:
        """Turn (N, D) embeddings into texts."""
        results: list[Any] = await self.compute(self.worker.decode, embeddings, options)
        return results


class TextToTextReplica(WriterReplica):
    """Text to text."""

    async def generate(self, texts: list[str], options: Any) -> list[str]:
        """Texts for texts."""
        results: list[str] = await self.compute(self.worker.generate, texts, options)
        return results


class BankReplica(Replica):
    """A decoder for each bank that it is asked for: Ray Serve sends calls to where theirs is open."""

    def __init__(self, worker: type, *arguments: Any) -> None:
        super().__init__(worker.__name__)
        self.worker = partial(worker, *arguments)

    @serve.multiplexed(max_num_models_per_replica=OPEN_BANKS)  # type: ignore[untyped-decorator]
    async def open(self, bank: str) -> Any:
        """The decoder of a version of a bank, by its `id`."""
        return await asyncio.to_thread(self.worker, *BankVersion.of(bank))

    async def decode(self, embeddings: FloatArray, on: OnBank) -> list[Any]:
        """Turn (N, D) embeddings into texts."""
        decoder = await self.open(on.bank.id)
        results: list[Any] = await self.compute(decoder.decode, embeddings, on.options)
        return results

    async def describe(self, on: OnBank | None = None) -> dict[str, Any]:
        """What it answers from, on a bank; nothing of a bank is looked at where none is named."""
        described: dict[str, Any] = (await self.open(on.bank.id)).describe() if on else {}
        return described


class HybridReplica(BankReplica):
    """Bank and RET, judged by the Embedder.

    One call is little beside the embedding of a batch of candidates; the teacher, by far the most work, is
    loaded once and scales by its own load.
    """

    def __init__(self, worker: type, ret: Made, effort: str, space: "Space", stages: Callees) -> None:
        embedder = MeasuredStage(stage_of(stages["Embedder"]), "Embedder")
        super().__init__(worker, made(ret), effort, StageTeacher(embedder, space))


class SessionStoreReplica(WorkerReplica):
    """The sessions."""

    def __init__(self, worker: type, *arguments: Any) -> None:
        super().__init__(worker, *arguments)
        self.sessions = session_gauge()

    async def commit(self, commits: list[Commit]) -> list[Any]:
        """Take over what happened in sessions; see the worker."""
        answers: list[Any] = await self.compute(self.worker.commit, commits)
        self.sessions.set(self.worker.describe()["sessions"])
        return answers


class GatewayReplica(Gateway):
    """Gateway whose stages are deployments, or replicas in this process."""

    async def __init__(self, config: ServeConfig, stages: Callees) -> None:  # type: ignore[misc]
        gathered = {
            name: MeasuredStage(GatheringStage(stage_of(stage), config.gathering), name)
            for name, stage in stages.items()
        }
        super().__init__(gathered, config)
        await self.start()
        self.following = asyncio.create_task(self.flow.banks.follow(config.refresh_s))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        return http_app(self, self.config.interface)


class FusedReplica(GatewayReplica):
    """Every stage in this process: no call leaves it, and the Gateway alone joins requests.

    Args:
        parts: the stages, each after those that it calls.
        config: of the application.
    """

    async def __init__(self, parts: Mapping[str, Part], config: ServeConfig) -> None:  # type: ignore[misc]
        stages: dict[str, Stage] = {}
        for name, part in parts.items():
            callees = ({callee: stages[callee] for callee in part.calls},) if part.calls else ()
            replica = part.replica(*part.arguments, *callees)
            replica.join_nothing()
            stages[name] = LocalStage(replica)
        await super().__init__(config, stages)


def made(what: Made) -> Any:
    """The object, where it is needed."""
    kind, *arguments = what
    return kind(*arguments)


def stage_of(callee: DeploymentHandle[Any] | Stage) -> Stage:
    """What is called, as a stage."""
    return HandleStage(callee) if isinstance(callee, DeploymentHandle) else callee


def _leave_gpus_of_others() -> None:
    """Let a replica that was given no GPU see none: Ray shows it all, and all would go to the first one."""
    try:
        serve.get_replica_context()
    except RayServeException:  # this is no process of a replica's own
        return
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
