"""The text-to-text model: its size, what it reads, and what padding may not change."""

import pytest
import torch
from pydantic import ValidationError

from cellular.cct import CCT, CCTConfig
from cellular.cct.encoder import real_pieces

from .conftest import SHAPE, make_model


def padded(*texts: list[int], width: int) -> torch.Tensor:
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in texts])


def test_the_default_has_between_5_and_10_million_parameters() -> None:
    model = CCT()
    counts = model.count_parameters()
    assert 5_000_000 < counts["all"] < 10_000_000
    assert counts["all"] == sum(weight.numel() for weight in model.parameters())
    assert counts["all"] == sum(count for part, count in counts.items() if part != "all")


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model = make_model()
    texts = [[5, 6, 7, 8, 9], [10], [], [11, 12]]
    alone = [model.encoder(padded(ids, width=len(ids) + 1))[0] for ids in texts]
    for width in (6, 7, 20):
        together = model.encoder(padded(*texts, width=width))
        torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-6)


def test_a_text_is_real_up_to_its_end() -> None:
    pieces = padded([5, 6], [], [7, 8, 9], width=4)
    assert real_pieces(pieces).tolist() == [
        [True, True, True, False],
        [True, False, False, False],
        [True, True, True, True],
    ]


@torch.no_grad()
def test_order_and_task_are_told_apart() -> None:
    model = make_model()
    embeddings = model.encoder(padded([5, 6, 7], [7, 6, 5], width=4))
    assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-3)
    results = model.transform(embeddings[[0, 0]], torch.tensor([0, 1]))
    assert not torch.allclose(results[0], results[1], atol=1e-3)
    torch.testing.assert_close(results.norm(dim=1), torch.ones(2))


def test_every_weight_is_trained() -> None:
    model = make_model()
    sources = padded([5, 6, 7], [8], width=4)
    model(sources, torch.tensor([0, 1]), sources[:, :-1]).square().sum().backward()
    still = {
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()
    }
    assert not still


@torch.no_grad()
def test_a_piece_is_predicted_from_those_before_it_alone() -> None:
    model = make_model()
    embeddings = model.encoder(padded([5, 6], width=3))
    one, other = (model.decoder(embeddings, torch.tensor([ids])) for ids in ([9, 8, 7, 6], [9, 8, 3, 2]))
    assert one.shape == (1, 5, 256)
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "even multiple of heads 3"),
        ({"slots": 5}, "multiple of slots 5"),
        ({"kernel": 4}, "kernel must be odd"),
        ({"tasks": ("a", "a")}, "tasks must differ"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CCTConfig.model_validate(SHAPE.model_dump() | settings)
