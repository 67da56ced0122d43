"""The model: its size, and what its logits may depend on."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch

from cellular import create_ultra_compact_decoder
from cellular.decoders.ret import RET, RETConfig
from cellular.types import FloatArray


@pytest.mark.parametrize("dimension", [384, 768])
@pytest.mark.parametrize("applications", [1, 8, 24])
def test_every_shape_has_722_944_parameters_and_no_buffer(
    dimension: Literal[384, 768], applications: int
) -> None:
    decoder = create_ultra_compact_decoder(dimension, applications)
    assert decoder._count_parameters() == 722_944
    assert not list(decoder.model.buffers())
    tensors = [value for value in vars(decoder.model).values() if isinstance(value, torch.Tensor)]
    assert not tensors  # nor is one hidden outside the parameters


def test_no_setting_reaches_the_ceiling_of_800_000() -> None:
    assert set(RETConfig.model_fields) == {"embedding_dimension", "applications"}  # a new one is tested here
    shapes = [RETConfig(embedding_dimension=d, applications=a) for d in (384, 768) for a in (1, 100)]
    assert max(RET(shape)._count_parameters() for shape in shapes) <= 800_000


@pytest.mark.parametrize("dimension", [384, 768])
def test_a_later_piece_changes_no_earlier_logits(
    make_model: Callable[..., RET], make_embeddings: Callable[..., FloatArray], dimension: int
) -> None:
    model, embeddings = make_model(dimension), torch.from_numpy(make_embeddings(2, dimension))
    pieces_BL = torch.randint(1, 256, (2, 12), generator=torch.Generator().manual_seed(0))
    changed_BL = pieces_BL.clone()
    changed_BL[:, 7] = 255 - changed_BL[:, 7]
    before, after = model(embeddings, pieces_BL), model(embeddings, changed_BL)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.isclose(before[:, 8], after[:, 8]).all()


@pytest.mark.parametrize("dimension", [384, 768])
def test_the_first_piece_depends_on_the_embedding_and_every_application(
    make_model: Callable[..., RET], make_embeddings: Callable[..., FloatArray], dimension: int
) -> None:
    embeddings, nothing = (
        torch.from_numpy(make_embeddings(2, dimension)),
        torch.empty(2, 0, dtype=torch.int64),
    )
    logits = [make_model(dimension, applications)(embeddings, nothing) for applications in (1, 2)]
    assert logits[0].shape == (2, 1, 256) and logits[0].dtype == torch.float32
    assert not torch.isclose(logits[0], logits[1]).all()
    assert not torch.isclose(logits[0][0], logits[0][1]).all()
