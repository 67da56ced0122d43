"""What training text to text adds to the loop on each worker."""

from cellular.training.text_to_text import PairSource, flops_per_position, make_model, make_trainer
from cellular.training.text_to_text_config import TrainTextToTextConfig
from cellular.training.trainer import Trainer
from pipelines.training_worker import Setup, Work, shard_reader


def _trainer(setup: Setup[TrainTextToTextConfig]) -> Trainer:
    return make_trainer(setup.config, make_model(setup.config).to(setup.device))


def _source(setup: Setup[TrainTextToTextConfig], trainer: Trainer) -> PairSource:
    return PairSource(shard_reader("train"), shard_reader("held_out"), setup.config, setup.device)


TEXT_TO_TEXT_WORK = Work(TrainTextToTextConfig, _trainer, _source, flops_per_position)
