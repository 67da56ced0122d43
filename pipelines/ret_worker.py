"""What each worker of a RET training does, as Ray Train calls it."""

import traceback
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import ray.train
import ray.train.torch
import torch
from ray import cloudpickle
from ray.data import DataIterator

from cellular.training.config import TrainRETConfig
from cellular.training.ret import TextSource, flops_per_position, make_model, make_reward, make_trainer
from pipelines.training_loop import Loop

READ_ROWS = 16_384


def train_worker(settings: dict[str, Any]) -> None:
    """The loop of one worker, as Ray Train calls it."""
    try:
        _train(settings)
    except Exception as error:
        raise _sendable(error) from None


def _sendable(error: Exception) -> Exception:
    """The error itself, or its text: a compiler's cannot be sent, and Ray would not say what it was."""
    try:
        cloudpickle.dumps(error)  # type: ignore[no-untyped-call]
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def _train(settings: dict[str, Any]) -> None:
    config = TrainRETConfig.model_validate(settings["config"])
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    context = ray.train.get_context()
    torch.manual_seed(config.loop.seed)
    model = make_model(config, settings["dimension"]).to(device)
    trainer = make_trainer(config, model)
    seed = 1_000_003 * (config.loop.seed + 1) + context.get_world_rank()  # noise differs by worker
    torch.manual_seed(seed)
    source = TextSource(
        shard_reader("train"),
        shard_reader("held_out"),
        config.loop,
        config.variation,
        device,
        make_reward(config, trainer, seed),
    )
    source.warm_up(trainer)
    Loop(
        trainer,
        source,
        config.schedule,
        config.loop,
        settings["facts"] | {"config": settings["config"]},
        flops_per_position(model),
        settings["deadline"],
    ).run()


def shard_reader(name: str) -> Callable[[], Iterable[pa.Table]]:
    """Starts a pass over this worker's share of a dataset; of one that is not there, an empty pass."""
    try:
        shard: DataIterator = ray.train.get_dataset_shard(name)
    except KeyError:
        return tuple
    return lambda: shard.iter_batches(batch_size=READ_ROWS, batch_format="pyarrow")
