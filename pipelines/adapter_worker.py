"""What training an adapter adds to the loop on each worker."""

from pathlib import Path

from cellular.training.adapter import PairSource, flops_per_pair, make_trainer
from cellular.training.adapter_config import TrainAdapterConfig
from cellular.training.trainer import Trainer
from pipelines.training_worker import Setup, Work, shard_reader


def _trainer(setup: Setup[TrainAdapterConfig]) -> Trainer:
    return make_trainer(setup.config, Path(setup.facts["start"]), setup.device)


def _source(setup: Setup[TrainAdapterConfig], trainer: Trainer) -> PairSource:
    return PairSource(shard_reader("train"), shard_reader("held_out"), setup.config.loop, setup.device)


ADAPTER_WORK = Work(TrainAdapterConfig, _trainer, _source, flops_per_pair)
