"""What training a lattice adds to the loop on each worker."""

from cellular.training.lattice import EmbeddingSource, flops_per_embedding, make_model, make_trainer
from cellular.training.lattice_config import TrainLatticeConfig
from cellular.training.trainer import Trainer
from pipelines.training_worker import Setup, Work, shard_reader


def _trainer(setup: Setup[TrainLatticeConfig]) -> Trainer:
    model = make_model(setup.config, setup.facts["dimension"]).to(setup.device)
    return make_trainer(setup.config, model)


def _source(setup: Setup[TrainLatticeConfig], trainer: Trainer) -> EmbeddingSource:
    return EmbeddingSource(shard_reader("train"), shard_reader("held_out"), setup.config, setup.device)


LATTICE_WORK = Work(TrainLatticeConfig, _trainer, _source, flops_per_embedding)
