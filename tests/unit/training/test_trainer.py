"""A trainer learns, resumes exactly, and lets pruning and rounding have their part."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellular.config import CorpusConfig
from cellular.decoders.ret.model import RET
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.decoders.ret.weights import matrices
from cellular.errors import CellularError
from cellular.objectives import Batch, LikelihoodLoss, make_batch
from cellular.training.buckets import WIDTHS, Buckets, Texts
from cellular.training.config import OptimizerConfig, ScheduleConfig, TrainingDataConfig, TrainRETConfig
from cellular.training.ret import flops_per_piece, flops_per_text, make_model, make_trainer, runs_fused
from cellular.training.state import load_state, save_state
from cellular.training.trainer import Trainer

from .conftest import SENTENCES

STEPS = 80


def configure(**settings: Any) -> TrainRETConfig:
    data = TrainingDataConfig(corpus=CorpusConfig(inputs=("corpus.txt",)))
    defaults: dict[str, Any] = {
        "target": Path("target"),
        "data": data,
        "applications": 2,
        "schedule": ScheduleConfig(steps=STEPS),
        "optimizer": OptimizerConfig(average_steps=10),
    }
    return TrainRETConfig(**(defaults | settings))


def new_trainer(config: TrainRETConfig, seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    return make_trainer(config, make_model(config, 384))


def batches(texts: Texts) -> list[Batch]:
    return [make_batch(texts, rows) for rows in Buckets(texts, 200, seed=0).every()]


def train(trainer: Trainer, texts: Texts, first: int, last: int) -> float:
    loss = torch.tensor(0.0)
    for step in range(first, last):
        loss = trainer.step(batches(texts), step / STEPS)
    return float(loss)


@torch.no_grad()
def greedy(model: RET, texts: Texts) -> Iterator[str]:
    for vector in texts.embeddings_NE.float():
        ids: list[int] = []
        while len(ids) < 60:
            following = int(model(vector[None], torch.tensor([ids], dtype=torch.long))[0, -1].argmax())
            if following == 0:
                break
            ids.append(following)
        yield Vocabulary.load().decode(np.array(ids, np.uint8))


def test_one_batch_is_learned_by_heart_and_decoded_exactly(texts: Texts) -> None:
    trainer = new_trainer(configure())
    train(trainer, texts, 0, STEPS)
    model = trainer.averaged()
    assert isinstance(model, RET)
    assert list(greedy(model, texts)) == SENTENCES


def test_a_saved_training_goes_on_exactly(texts: Texts, tmp_path: Path) -> None:
    whole, begun, resumed = (new_trainer(configure(), seed) for seed in (0, 0, 1))
    train(whole, texts, 0, 8)
    train(begun, texts, 0, 5)
    save_state(tmp_path, begun.state(), {"steps": begun.steps})
    tensors, facts = load_state(tmp_path, torch.device("cpu"))
    resumed.load_state(tensors, facts["steps"])
    train(resumed, texts, 5, 8)
    for group, tensors in whole.state().items():
        assert all(torch.equal(tensor, resumed.state()[group][name]) for name, tensor in tensors.items())


def test_an_incomplete_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CellularError, match=r"no checkpoint of a training.*weights\.safetensors"):
        load_state(tmp_path, torch.device("cpu"))


def test_passes_add_up_to_the_gradient_of_one(texts: Texts) -> None:
    one, two = new_trainer(configure()), new_trainer(configure())
    batch = batches(texts)[0]
    one.gradients([batch])
    two.gradients([batch, batch])
    for left, right in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert left.grad is not None and right.grad is not None
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-6)


def test_the_loss_is_of_the_averaged_weights_and_leaves_no_trace(texts: Texts) -> None:
    trainer = new_trainer(configure())
    train(trainer, texts, 0, 20)
    before = trainer.state()["weights"]["pieces"].clone()
    found = trainer.evaluate(batches(texts), lambda batch: batch.mask_BL.sum())
    model = trainer.averaged().to(next(trainer.copy.parameters()).dtype)
    losses = [(LikelihoodLoss()(model, batch), batch.mask_BL.sum()) for batch in batches(texts)]
    expected = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
    assert found == pytest.approx(float(torch.as_tensor(expected).detach()), rel=1e-5)
    assert torch.equal(trainer.state()["weights"]["pieces"], before)
    assert trainer.evaluate([], lambda batch: batch.mask_BL.sum()) is None


def test_pruning_leaves_its_share_of_zeros(texts: Texts) -> None:
    trainer = new_trainer(configure(sparsity=0.8))
    assert train(trainer, texts, 0, STEPS) < 3
    model = trainer.averaged()
    assert isinstance(model, RET)
    zeros = [float((weight == 0).float().mean()) for weight in matrices(model).values()]
    assert zeros == pytest.approx([0.8] * len(zeros), abs=0.01)


def test_rounding_is_felt_and_the_weights_stay_their_own(texts: Texts) -> None:
    rounded, plain = new_trainer(configure(precision="int4")), new_trainer(configure())
    batch = batches(texts)[0]
    assert float(rounded.gradients([batch])) != float(plain.gradients([batch]))
    weights = zip(rounded.model.parameters(), plain.model.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in weights)


@pytest.mark.skipif(runs_fused(torch.cuda.is_available()), reason="they run here")
def test_our_kernels_are_refused_where_they_do_not_run() -> None:
    with pytest.raises(CellularError, match="Hopper"):
        new_trainer(configure(loop={"fused": True}))


def test_the_work_of_a_text_is_that_of_its_products() -> None:
    model = make_model(configure(applications=8), 384)
    positions = 2 + 15 - 1  # the prefix, and pieces but for the last
    weights = positions * 8 * 458_752 + 15 * 65_536 + 512 * 384
    seen = 8 * positions * (positions + 1) // 2
    assert flops_per_text(model, 15) == 6 * weights + 12 * 256 * seen


def test_a_piece_in_any_bucket_takes_about_as_much_work() -> None:
    model = make_model(configure(applications=8), 384)
    of_widths = [flops_per_text(model, width) / width for width in WIDTHS]
    assert of_widths == pytest.approx([flops_per_piece(model)] * len(WIDTHS), rel=0.03)
