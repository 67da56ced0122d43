"""Batches of a RET training, plain and rewarded."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cellular.config import CorpusConfig, TeacherConfig
from cellular.decoders.ret import create_ultra_compact_decoder
from cellular.decoders.ret.checkpoint import Checkpoint, TeacherInfo, save_checkpoint
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.objectives import make_batch
from cellular.teachers import HashTeacher
from cellular.training.buckets import WIDTHS, Rows
from cellular.training.config import TrainRETConfig
from cellular.training.ret import TextSource, make_model, make_reward, make_trainer
from cellular.training.shards import write_shard
from tests.unit.training.conftest import SENTENCES, learnable


def make_config(**settings: object) -> TrainRETConfig:
    data = {"corpus": CorpusConfig(inputs=("unused",)), "teacher": TeacherConfig(name="hash:384")}
    loop = {"batch_tokens": 400, "pass_tokens": 400}
    base = {"target": "unused", "data": data, "schedule": {"steps": 4}, "loop": loop, "applications": 1}
    return TrainRETConfig.model_validate(base | settings)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.parquet"
    write_shard(
        path, SENTENCES, Vocabulary.load().encode_batch(SENTENCES), HashTeacher(384).encode(SENTENCES)
    )
    return path


def test_rewarded_batches_hold_samples_beside_texts_and_train(shard: Path) -> None:
    config = make_config(reward={"samples": 3})
    trainer = make_trainer(config, make_model(config, 384))
    before = trainer.copy.projection.clone()
    reward = make_reward(config, trainer, 0)
    read = [pq.read_table(shard)]
    source = TextSource(
        lambda: read, lambda: read, config.loop, config.variation, torch.device("cpu"), reward
    )
    batches, positions = source.draw(0)
    assert positions <= 400
    assert all(len(batch.targets_BL) % 4 == 0 for batch in batches)
    trainer.step(batches, 0.0)
    assert not torch.equal(before, trainer.copy.projection)
    assert source.evaluate(trainer) is not None


@pytest.mark.parametrize(("equal", "ratio"), [("texts", 1.0), ("pieces", 6.0)])
def test_a_long_text_counts_as_a_short_one_or_by_its_pieces(tmp_path: Path, equal: str, ratio: float) -> None:
    narrow, wide = WIDTHS[0], WIDTHS[-1]
    pieces = [np.full(width - 1, 20, np.uint8) for width in [narrow] * 12 + [wide] * 12]
    write_shard(tmp_path / "shard", ["x"] * 24, pieces, HashTeacher(384).encode([str(n) for n in range(24)]))
    config = make_config(loop={"batch_tokens": 2 * wide, "pass_tokens": 2 * wide, "equal": equal})
    read = [pq.read_table(tmp_path / "shard")]
    source = TextSource(lambda: read, lambda: read, config.loop, config.variation, torch.device("cpu"))
    drawn = dict.fromkeys((narrow, wide), 0)
    for step in range(700):
        (batch,), _ = source.draw(step)
        drawn[batch.targets_BL.shape[1]] += 1
    assert drawn[wide] / drawn[narrow] == pytest.approx(ratio, rel=0.2)


def test_another_teacher_gets_a_projection_of_its_own_and_nothing_else_changes(tmp_path: Path) -> None:
    base = create_ultra_compact_decoder(768, 1)
    info = TeacherInfo(name="hash:768", fingerprint="hash:768", dimension=768)
    save_checkpoint(tmp_path, Checkpoint(base.model, Vocabulary.load(), info))
    config = make_config(base=str(tmp_path), only="projection", applications=None)
    model = make_model(config, 384)
    source = learnable(SENTENCES)
    rows = Rows(24, torch.arange(2), torch.ones(2, dtype=torch.bool))
    trainer = make_trainer(config, model)
    before = model.projection.detach().clone()
    trainer.step([make_batch(source, rows)], 0.0)
    assert not torch.equal(model.projection, before)
    unchanged = base.model.state_dict()
    assert all(
        torch.equal(value, unchanged[name])
        for name, value in model.state_dict().items()
        if name != "projection"
    )


def test_rewards_are_followed_in_small_steps_unless_told() -> None:
    assert make_config(reward={"samples": 3}).optimizer.rate == 3e-4
    assert make_config(reward={}).optimizer.rate == 3e-4
    assert make_config(reward={"samples": 3}, optimizer={"rate": 1e-3}).optimizer.rate == 1e-3
    assert make_config().optimizer.rate == 3e-3
    again = TrainRETConfig.model_validate(make_config(reward={"samples": 3}).model_dump(mode="json"))
    assert again.optimizer.rate == 3e-4
