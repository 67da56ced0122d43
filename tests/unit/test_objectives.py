"""Batches hold what is to be learned, and the loss counts nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cellular.decoders.ret.model import RET, RETConfig
from cellular.objectives import LikelihoodLoss, add_noise, drop_pieces, make_batch
from cellular.training.buckets import Rows, Texts
from cellular.training.config import VariationConfig


@pytest.fixture
def texts() -> Texts:
    vectors = torch.nn.functional.normalize(torch.randn(3, 384, generator=torch.Generator().manual_seed(0)))
    pieces = torch.tensor([5, 6, 7, 8, 9, 10, 11, 12], dtype=torch.uint8)
    return Texts(pieces, torch.tensor([0, 3, 3, 8]), vectors.half())


def rows(*numbers: int, width: int = 5) -> Rows:
    return Rows(width, torch.tensor(numbers), torch.ones(len(numbers), dtype=torch.bool))


def test_a_batch_holds_pieces_then_one_end_that_counts(texts: Texts) -> None:
    batch = make_batch(texts, rows(0, 1))
    assert batch.targets_BL.tolist() == [[5, 6, 7, 0, 0], [0, 0, 0, 0, 0]]
    assert batch.inputs_BL.tolist() == [[5, 6, 7, 0], [0, 0, 0, 0]]
    assert batch.mask_BL.tolist() == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]


def test_a_text_too_long_is_learned_without_its_end(texts: Texts) -> None:
    batch = make_batch(texts, rows(2, width=4))
    assert batch.targets_BL.tolist() == [[8, 9, 10, 11]]
    assert batch.mask_BL.tolist() == [[1, 1, 1, 1]]


def test_rows_that_are_not_real_count_nothing(texts: Texts) -> None:
    fill = Rows(5, torch.tensor([0, 0]), torch.tensor([True, False]))
    model = RET(RETConfig(applications=1))
    loss = LikelihoodLoss()
    expected = loss(model, make_batch(texts, rows(0)))
    torch.testing.assert_close(loss(model, make_batch(texts, fill)), expected)
    nothing = Rows(5, torch.tensor([0]), torch.tensor([False]))
    assert float(loss(model, make_batch(texts, nothing)).detach()) == 0


def test_the_loss_is_the_mean_over_pieces(texts: Texts) -> None:
    model = RET(RETConfig(applications=1))
    found = LikelihoodLoss()(model, make_batch(texts, rows(0, 1)))
    losses = []
    for number, ids in ((0, [5, 6, 7]), (1, [])):
        scores = model(
            texts.embeddings_NE[number : number + 1].float(), torch.tensor([ids], dtype=torch.long)
        )
        losses += F.cross_entropy(scores[0], torch.tensor([*ids, 0]), reduction="none").tolist()
    assert float(found.detach()) == pytest.approx(np.mean(losses), rel=1e-5)


def test_noise_keeps_length_and_stays_within_its_bound(texts: Texts) -> None:
    vectors = F.normalize(texts.embeddings_NE.float())
    noised = add_noise(vectors, 0.5)
    torch.testing.assert_close(noised.norm(dim=1), torch.ones(3))
    assert not torch.equal(noised, vectors)
    assert float((noised * vectors).sum(1).min()) > 0.8


def test_dropped_pieces_leave_the_targets_alone(texts: Texts) -> None:
    batch = make_batch(texts, rows(0, 2), VariationConfig(piece_drop=0.99))
    assert batch.targets_BL.tolist() == make_batch(texts, rows(0, 2)).targets_BL.tolist()
    assert (batch.inputs_BL == 0).sum() > 4
    kept = drop_pieces(torch.full((100, 100), 9), 0.3)
    assert float((kept == 9).float().mean()) == pytest.approx(0.7, abs=0.03)
