"""What training RET adds to the loop on each worker."""

from typing import cast

from torch import nn

from cellular.decoders.ret.model import RET
from cellular.training.config import TrainRETConfig
from cellular.training.ret import TextSource, flops_per_piece, make_model, make_reward, make_trainer
from cellular.training.trainer import Trainer
from pipelines.training_worker import Setup, Work, shard_reader


def _trainer(setup: Setup[TrainRETConfig]) -> Trainer:
    model = make_model(setup.config, setup.facts["dimension"]).to(setup.device)
    return make_trainer(setup.config, model)


def _source(setup: Setup[TrainRETConfig], trainer: Trainer) -> TextSource:
    return TextSource(
        shard_reader("train"),
        shard_reader("held_out"),
        setup.config.loop,
        setup.config.variation,
        setup.device,
        make_reward(setup.config, trainer, setup.seed),
    )


def _flops(model: nn.Module) -> float:
    return flops_per_piece(cast(RET, model))


RET_WORK = Work(TrainRETConfig, _trainer, _source, _flops)
