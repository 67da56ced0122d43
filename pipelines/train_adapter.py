"""Train an adapter: what it adds to a training, from its pairs to the adapter with its card."""

from pathlib import Path

from cellular.adapter import Space, UniversalAdapter, make_network
from cellular.training.adapter import COLUMNS, shape
from cellular.training.adapter_config import TrainAdapterConfig
from pipelines.adapter_data import START, pairs_folder, prepare_pairs
from pipelines.adapter_worker import ADAPTER_WORK
from pipelines.model_card import adapter_card
from pipelines.progress import Track
from pipelines.training_data import prepare
from pipelines.training_run import Data, Recipe, Run, Trained, data_folder

DECIDES = {
    "strategy": True,
    "width": True,
    "contrast": True,
    "loop": {"batch_pairs", "seed"},
}


def _recipe(config: TrainAdapterConfig, restart: bool, track: Track) -> Recipe:
    return Recipe(
        config=config,
        work=ADAPTER_WORK,
        prepare=lambda: _prepare(config, restart, track),
        export=lambda path, trained: _export(config, path, trained),
        decides=DECIDES,
    )


run = Run(_recipe)


def _prepare(config: TrainAdapterConfig, restart: bool, track: Track) -> Data:
    folder = data_folder(config)
    data = prepare(config.data, folder, config.embedding, restart=restart, track=track)
    pairs, there = prepare_pairs(config, data, folder, track), pairs_folder(config, data, folder)
    target = Space(name=data.teacher.name, fingerprint=data.teacher.fingerprint, dimension=data.dimension)
    return Data(
        identity=f"{data.build} {pairs.source.fingerprint}",
        examples=data.rows,
        facts={
            "source": pairs.source.model_dump(),
            "target": target.model_dump(),
            "start": str(there / START),
        },
        shards={
            "train": [there / name for name in pairs.train],
            "held_out": [there / name for name in pairs.held_out],
        },
        columns=COLUMNS,
    )


def _export(config: TrainAdapterConfig, path: Path, trained: Trained) -> None:
    source, target = (Space.model_validate(trained.facts[name]) for name in ("source", "target"))
    network = make_network(shape(config, source.dimension, target.dimension))
    network.load_state_dict(trained.weights)
    adapter = UniversalAdapter(network, source, target, trained.origin)
    adapter.save(path, adapter_card(config, adapter, trained.curve))
