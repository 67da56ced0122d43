"""Pairs are drawn alike after any interruption, and their loss falls."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from actors.pair_embedder import PairEmbedder, sum_pairs
from cellular.adapter import AdapterConfig, Affine, PairSums, load_maps, make_network, ridge, save_maps
from cellular.config import TeacherConfig
from cellular.teachers import HashTeacher
from cellular.training.adapter import AdapterLoss, EmbeddingPairs, PairBatch, PairSource, make_trainer
from cellular.training.adapter_config import ContrastConfig, PairLoopConfig, TrainAdapterConfig
from cellular.training.config import CorpusConfig, ScheduleConfig, TrainingDataConfig
from cellular.training.shards import write_shard

TEXTS = [f"{number} {word}s" for number in range(30) for word in ("cat", "dog", "owl")]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of hash:24 and hash:16, as a preparation makes them."""
    folder = tmp_path_factory.mktemp("pairs")
    pieces = [np.zeros(1, np.uint8)] * len(TEXTS)
    write_shard(folder / "texts.parquet", TEXTS, pieces, HashTeacher(16).encode(TEXTS))
    item = {"texts": str(folder / "texts.parquet"), "output": str(folder / "pairs.parquet")}
    assert PairEmbedder(TeacherConfig(name="hash:24"))(item) == {"phrases": len(TEXTS)}
    return folder / "pairs.parquet"


def source_of(shard: Path, seed: int = 0) -> PairSource:
    config = PairLoopConfig(batch_pairs=8, seed=seed)
    return PairSource(lambda: [pq.read_table(shard)], lambda: [pq.read_table(shard)], config, CPU)


def config_of(steps: int) -> TrainAdapterConfig:
    corpus = CorpusConfig(inputs=("texts.txt",))
    return TrainAdapterConfig(
        target=Path("unused"),
        data=TrainingDataConfig(corpus=corpus),
        width=8,
        schedule=ScheduleConfig(steps=steps),
    )


def test_pairs_are_both_teachers_embeddings(shard: Path) -> None:
    pairs = EmbeddingPairs.of(pq.read_table(shard))
    np.testing.assert_allclose(pairs.source_NS.numpy(), HashTeacher(24).encode(TEXTS), atol=1e-3)
    np.testing.assert_allclose(pairs.target_NT.numpy(), HashTeacher(16).encode(TEXTS), atol=1e-3)
    twice = EmbeddingPairs.join([pairs, pairs])
    assert twice.bytes == 2 * pairs.bytes == 2 * len(TEXTS) * 40 * 2


def test_sums_are_those_of_the_pairs(shard: Path, tmp_path: Path) -> None:
    item = {"pairs": [str(shard), str(shard)], "output": str(tmp_path / "sums.safetensors")}
    assert sum_pairs(item) == {"phrases": 2 * len(TEXTS)}
    found = PairSums.load(tmp_path / "sums.safetensors")
    expected = PairSums.of(HashTeacher(24).encode(TEXTS), HashTeacher(16).encode(TEXTS))
    np.testing.assert_allclose(found.cross_ST, 2 * expected.cross_ST, atol=0.05)


def test_a_step_draws_the_same_pairs_whatever_came_before(shard: Path) -> None:
    first, second = source_of(shard), source_of(shard)
    first.draw(0)
    for one, other in zip(first.draw(7)[0][0], second.draw(7)[0][0], strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(second.draw(8)[0][0].source_BS, second.draw(7)[0][0].source_BS)


def test_the_loss_of_perfect_pairs_is_that_of_their_likeness_alone() -> None:
    network = make_network(AdapterConfig(strategy="linear", source_dimension=4, target_dimension=4))
    same = Affine(np.eye(4, dtype=np.float32), np.zeros(4, np.float32))
    network.start(same, same)
    batch = PairBatch(torch.eye(4), torch.eye(4))
    for weight in (0.0, 1.0):
        loss = AdapterLoss(ContrastConfig(weight=weight, temperature=0.2))(network, batch).item()
        assert loss == pytest.approx(weight * np.log1p(3 * np.exp(-5)), abs=1e-5)


def test_training_lowers_the_loss_of_the_ridge(shard: Path, tmp_path: Path) -> None:
    sums = PairSums.of(HashTeacher(24).encode(TEXTS), HashTeacher(16).encode(TEXTS))
    save_maps(tmp_path / "start.safetensors", ridge(sums, 1e-3), ridge(sums.reversed, 1e-3))
    assert load_maps(tmp_path / "start.safetensors")[0].weight.shape == (24, 16)
    source, trainer = source_of(shard), make_trainer(config_of(40), tmp_path / "start.safetensors", CPU)
    before = source.evaluate(trainer)
    for step in range(40):
        trainer.step(source.draw(step)[0], step / 40)
    after = source.evaluate(trainer)
    assert before and after and after < before
