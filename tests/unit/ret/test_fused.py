"""The training kernels against the plain layer; told to, Triton's interpreter runs the loss's off the GPU."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.decoders.ret.model import RET, RETConfig
from cellular.objectives import Batch, LikelihoodLoss, Objective
from cellular.training.ret import runs_fused
from tests.unit.ret.conftest import DEVICE, runs_kernels

DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
runs_attention = pytest.mark.skipif(
    not runs_fused(torch.cuda.is_available()),
    reason="Gluon has no interpreter: needs a Hopper GPU",
)


@pytest.fixture
def make() -> Callable[[int], RET]:
    """Gains and steps off their first values, so that their gradients are tried too."""

    def make(dimension: int) -> RET:
        torch.manual_seed(0)
        model = RET(RETConfig.model_validate({"embedding_dimension": dimension, "applications": 2}))
        gains = model.attention_norm, model.mlp_norm, model.step_gain, model.input_norm, model.prefix_gain
        with torch.no_grad():
            for weight in gains:
                weight.add_(0.3 * torch.randn_like(weight))
        return model.to(DEVICE)

    return make


def fused(model: RET) -> Callable[[Tensor, Tensor], Tensor]:
    from cellular.decoders.ret.fused import fused_states

    return fused_states(model)


def texts(batch: int, positions: int, dimension: int = 384) -> tuple[Tensor, Tensor]:
    """Embeddings and pieces that take so many positions."""
    draw = torch.Generator().manual_seed(batch)
    embeddings_BE = F.normalize(torch.randn(batch, dimension, generator=draw), dim=1)
    pieces_BL = torch.randint(0, 256, (batch, positions - 768 // dimension), generator=draw)
    return embeddings_BE.to(DEVICE), pieces_BL.to(DEVICE)


def gradients(
    make: Callable[[RET], Callable[[Tensor, Tensor], Tensor]],
    model: RET,
    given: tuple[Tensor, Tensor],
    dy_BTD: Tensor,
) -> dict[str, Tensor]:
    """The result, and the gradients of the weights."""
    model = copy.deepcopy(model)
    y_BTD = make(model)(*given)
    y_BTD.backward(dy_BTD.to(y_BTD.dtype))
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"output": y_BTD.detach(), **found}


@runs_attention
@pytest.mark.parametrize(
    ("batch", "positions", "dimension"),
    [(5, 17, 384), (8, 16, 768), (2, 97, 384), (9, 32, 384), (3, 42, 384)],
)
def test_output_and_gradients_are_as_near_to_the_exact_ones_as_the_plain_layers(
    make: Callable[[int], RET], batch: int, positions: int, dimension: int
) -> None:
    model, given = make(dimension), texts(batch, positions, dimension)
    dy_BTD = torch.randn(batch, positions, 256, device=DEVICE).to(DTYPE)
    exact = gradients(lambda model: model.states, model.double(), given, dy_BTD)
    plain = gradients(lambda model: model.states, model.to(DTYPE), given, dy_BTD)
    found = gradients(fused, model.to(DTYPE), given, dy_BTD)
    assert found.keys() == exact.keys()
    assert found.keys() >= {"pieces", "projection", "prefix_gain", "input_norm", "step_gain", "mlp_norm"}
    for name, tensor in exact.items():
        error, allowed = (float((other[name] - tensor).norm() / tensor.norm()) for other in (found, plain))
        assert error < 1.2 * allowed + 1e-5, name


@runs_kernels
@pytest.mark.parametrize(("batch", "width"), [(3, 16), (9, 31)])
def test_the_loss_and_its_gradients_are_as_near_to_the_exact_ones_as_the_plain_losss(
    make: Callable[[int], RET], batch: int, width: int
) -> None:
    from cellular.decoders.ret.fused import fused_likelihood

    model, (embeddings_BE, pieces_BL) = make(384), texts(batch, width + 1)
    targets_BL = pieces_BL.roll(-1, 1)
    targets_BL = torch.cat([pieces_BL[:, :1], targets_BL], 1)
    weights_BL = torch.rand(targets_BL.shape, device=DEVICE) * (targets_BL > 60)
    given = Batch(embeddings_BE, pieces_BL, targets_BL, weights_BL)

    def found(objective: Objective, dtype: torch.dtype) -> dict[str, Tensor]:
        copied = copy.deepcopy(model).to(dtype)
        loss = objective(copied, given)
        loss.backward()
        of_weights = {
            name: weight.grad for name, weight in copied.named_parameters() if weight.grad is not None
        }
        return {"loss": loss.detach(), **of_weights}

    exact, plain = found(LikelihoodLoss(), torch.float64), found(LikelihoodLoss(), DTYPE)
    ours = found(fused_likelihood, DTYPE)
    assert ours.keys() == exact.keys() == {"loss", *dict(model.named_parameters())}
    for name, tensor in exact.items():
        error, allowed = (float((other[name] - tensor).norm() / tensor.norm()) for other in (ours, plain))
        assert error < 1.2 * allowed + 1e-5, name


@runs_attention
def test_a_sequence_does_not_see_its_neighbours(make: Callable[[int], RET]) -> None:
    model, (embeddings_BE, pieces_BL) = make(384).to(DTYPE), texts(9, 17)
    with torch.no_grad():
        together = fused(model)(embeddings_BE, pieces_BL)
        alone = fused(model)(embeddings_BE[4:5], pieces_BL[4:5])
    torch.testing.assert_close(together[4:5], alone, rtol=0, atol=1e-5)
