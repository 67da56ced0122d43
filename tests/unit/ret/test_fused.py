"""The training kernels against the plain layer; off the GPU, Triton's interpreter runs them if told to."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cellular.decoders.ret.model import RET, RETConfig
from tests.unit.ret.conftest import DEVICE, runs_kernels

DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
pytestmark = runs_kernels


@pytest.fixture
def model() -> RET:
    """Gains and steps off their first values, so that their gradients are tried too."""
    torch.manual_seed(0)
    model = RET(RETConfig(applications=2))
    with torch.no_grad():
        for weight in (model.attention_norm, model.mlp_norm, model.step_gain):
            weight.add_(0.3 * torch.randn_like(weight))
    return model.to(DEVICE)


def fused(model: RET) -> Callable[[Tensor], Tensor]:
    from cellular.decoders.ret.fused import fused_layers

    return fused_layers(model)


def gradients(
    make: Callable[[RET], Callable[[Tensor], Tensor]], model: RET, x_BTD: Tensor, dy_BTD: Tensor
) -> dict[str, Tensor]:
    """The result, and the gradients of states and weights."""
    model, x_BTD = copy.deepcopy(model), x_BTD.clone().requires_grad_()
    y_BTD = make(model)(x_BTD)
    y_BTD.backward(dy_BTD.to(y_BTD.dtype))
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert x_BTD.grad is not None
    return {"output": y_BTD.detach(), "states": x_BTD.grad, **found}


@pytest.mark.parametrize(("batch", "positions"), [(5, 17), (2, 97)])
def test_output_and_gradients_are_as_near_to_the_exact_ones_as_the_plain_layers(
    model: RET, batch: int, positions: int
) -> None:
    x_BTD, dy_BTD = torch.randn(2, batch, positions, 256, device=DEVICE).to(DTYPE)
    exact = gradients(lambda model: model.apply_layer, model.double(), x_BTD.double(), dy_BTD)
    plain = gradients(lambda model: model.apply_layer, model.to(DTYPE), x_BTD, dy_BTD)
    found = gradients(fused, model.to(DTYPE), x_BTD, dy_BTD)
    assert found.keys() == exact.keys()
    for name, tensor in exact.items():
        error, allowed = (float((other[name] - tensor).norm() / tensor.norm()) for other in (found, plain))
        assert error < 1.2 * allowed + 1e-5, name


def test_a_sequence_does_not_see_its_neighbours(model: RET) -> None:
    x_BTD = torch.randn(9, 17, 256, device=DEVICE, dtype=DTYPE)
    with torch.no_grad():
        together, alone = fused(model)(x_BTD), fused(model)(x_BTD[4:5])
    torch.testing.assert_close(together[4:5], alone, rtol=0, atol=1e-5)
