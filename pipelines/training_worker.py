"""What each worker of a training does, as Ray Train calls it. What is trained comes in as functions."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray.train
import ray.train.torch
import torch
from ray import cloudpickle
from ray.data import DataIterator
from torch import nn

from cellular.training.config import TrainingConfig
from cellular.training.trainer import Trainer
from pipelines.training_loop import Loop, Source

READ_ROWS = 16_384

Config = TypeVar("Config", bound=TrainingConfig)


@dataclass(frozen=True)
class Setup(Generic[Config]):
    """What a worker builds its part from.

    Args:
        config: what was asked for.
        facts: what the data are: plain values of the recipe's `Data`.
        device: of this worker.
        seed: differs by worker.
    """

    config: Config
    facts: dict[str, Any]
    device: torch.device
    seed: int


@dataclass(frozen=True)
class Work(Generic[Config]):
    """What one kind of training adds to the loop.

    Args:
        config: class of its settings.
        trainer: makes the model, the same on every worker, and its trainer.
        source: makes where batches come from; `shard_reader` gives the data.
        flops: of a model, forward and backward for one of what the source counts.
    """

    config: type[Config]
    trainer: Callable[[Setup[Config]], Trainer]
    source: Callable[[Setup[Config], Trainer], Source]
    flops: Callable[[nn.Module], float]

    def run(self, settings: dict[str, Any]) -> None:
        """The loop of one worker.

        Args:
            settings: `config`, `facts` and `deadline`, as plain values.
        """
        try:
            self._train(settings)
        except Exception as error:
            raise _sendable(error) from None

    def _train(self, settings: dict[str, Any]) -> None:
        config = self.config.model_validate(settings["config"])
        device = ray.train.torch.get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.set_float32_matmul_precision("high")
        seed = 1_000_003 * (config.loop.seed + 1) + ray.train.get_context().get_world_rank()
        setup = Setup(config, settings["facts"], device, seed)
        torch.manual_seed(config.loop.seed)
        trainer = self.trainer(setup)
        torch.manual_seed(seed)
        source = self.source(setup, trainer)
        source.warm_up(trainer)
        facts = {"data": settings["facts"], "config": settings["config"]}
        flops, deadline = self.flops(trainer.model), settings["deadline"]
        Loop(trainer, source, config.schedule, config.loop, facts, flops, deadline).run()


def _sendable(error: Exception) -> Exception:
    """The error itself, or its text: a compiler's cannot be sent, and Ray would not say what it was."""
    try:
        cloudpickle.dumps(error)  # type: ignore[no-untyped-call]
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def shard_reader(name: str) -> Callable[[], Iterable[pa.Table]]:
    """Starts a pass over this worker's share of a dataset; of one that is not there, an empty pass."""
    try:
        shard: DataIterator = ray.train.get_dataset_shard(name)
    except KeyError:
        return tuple
    return lambda: shard.iter_batches(batch_size=READ_ROWS, batch_format="pyarrow")
