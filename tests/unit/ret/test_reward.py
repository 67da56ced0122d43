"""Reward fine-tuning: what is drawn, what it is worth, and that following it pays."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cellular.decoders.ret import RET, Vocabulary
from cellular.decoders.ret.reward import RewardedTexts, advantages, blend, draw, overlap, up_to_end
from cellular.objectives import Batch, LikelihoodLoss
from cellular.teachers import HashTeacher
from cellular.training.config import RewardConfig


@pytest.mark.parametrize(
    ("own", "other", "share"),
    [
        ([5, 6, 7, 0], [5, 6, 7, 0], 1.0),
        ([5, 6, 7, 0], [8, 9, 8, 0], 0.0),
        ([5, 5, 5, 0], [5, 9, 0, 0], 1 / 6),  # one of the fives is wanted, of 3 + 2 + 1 n-grams
        ([5, 6, 0, 0], [5, 6, 7, 0], 3 / 6),
        ([0, 0, 0, 0], [5, 6, 7, 0], 0.0),
    ],
)
def test_overlap_is_the_shared_n_grams_of_the_longer_text(
    own: list[int], other: list[int], share: float
) -> None:
    padding = [0] * 4
    assert overlap(torch.tensor([own + padding]), torch.tensor([other + padding])).item() == pytest.approx(
        share
    )


def test_advantages_are_zero_on_average_for_each_embedding() -> None:
    gain_BS = advantages(torch.rand(24), 4).view(-1, 4)
    assert torch.allclose(gain_BS.mean(1), torch.zeros(6), atol=1e-6)
    assert gain_BS.std().item() == pytest.approx(1.0, abs=1e-3)


def test_a_blend_lies_on_the_line_between_the_weights() -> None:
    base, rewarded = {"a": torch.zeros(2)}, {"a": torch.tensor([4.0, 8.0])}
    assert [blend(base, rewarded, share)["a"].tolist() for share in (0, 0.25, 1)] == [[0, 0], [1, 2], [4, 8]]


def test_up_to_end_counts_the_pieces_and_their_end() -> None:
    assert up_to_end(torch.tensor([[4, 5, 0, 0], [4, 5, 6, 7], [0, 0, 0, 0]])).tolist() == [
        [1, 1, 1, 0],
        [1, 1, 1, 1],
        [1, 0, 0, 0],
    ]


def make_batch(texts: list[str], teacher: HashTeacher, width: int = 20) -> Batch:
    targets = torch.zeros(len(texts), width, dtype=torch.int64)
    for row, ids in zip(targets, Vocabulary.load().encode_batch(texts), strict=True):
        row[: len(ids)] = torch.from_numpy(ids.copy()).long()
    return Batch(torch.from_numpy(teacher.encode(texts)), targets[:, :-1], targets, up_to_end(targets))


@pytest.fixture
def batch(known_texts: list[str]) -> Batch:
    return make_batch([text[:16] for text in known_texts[:4]], HashTeacher(384))


def test_texts_that_only_fill_a_batch_weigh_nothing(make_model: Callable[..., RET], batch: Batch) -> None:
    mask = batch.mask_BL.clone()
    mask[1] = 0
    rewarded = RewardedTexts(make_model(), HashTeacher(384), Vocabulary.load(), RewardConfig(samples=3), 0)
    drawn = rewarded(batch._replace(mask_BL=mask))
    assert len(drawn.mask_BL) == rewarded.rows * len(mask) == 16
    assert not drawn.mask_BL[3:6].any()
    assert not drawn.mask_BL[13].any()
    assert torch.equal(drawn.targets_BL[12:], batch.targets_BL)
    assert torch.equal(drawn.embeddings_BE[:3], batch.embeddings_BE[:1].expand(3, -1))


def test_draws_depend_on_the_seed_alone(make_model: Callable[..., RET], batch: Batch) -> None:
    def drawn(seed: int) -> Tensor:
        return draw(make_model(), batch.embeddings_BE, 12, 1.0, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_following_the_reward_raises_it(make_model: Callable[..., RET], batch: Batch) -> None:
    model, teacher, loss = make_model(applications=1), HashTeacher(384), LikelihoodLoss()
    config = RewardConfig(samples=16, temperature=1.0)
    rewarded = RewardedTexts(model, teacher, Vocabulary.load(), config, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, (0.9, 0.98))

    def learn(steps: int, make: Callable[[Batch], Batch]) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(model, make(batch)).backward()
            optimizer.step()

    def mean_overlap() -> float:
        texts = batch.targets_BL.repeat_interleave(16, 0)
        embeddings = batch.embeddings_BE.repeat_interleave(16, 0)
        drawn = draw(model, embeddings, texts.shape[1], 1.0, torch.Generator().manual_seed(9))
        return overlap(drawn, texts).mean().item()

    learn(30, lambda batch: batch)
    before = mean_overlap()
    optimizer.param_groups[0]["lr"] = 1e-3
    learn(60, rewarded)
    assert mean_overlap() > 1.3 * before
