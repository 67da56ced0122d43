"""Stacked matrices are optimised as the several ones they are; a saved state goes on exactly."""

import pytest
import torch
from torch import Tensor, nn

from cellular.errors import CellularError
from cellular.training.config import OptimizerConfig
from cellular.training.optimizer import Muon, Optimizers

CONFIG = OptimizerConfig()
APART, TOGETHER = 1.0, 0.1  # shares by which the matrices below are several batches or one


def weights(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"stacked": (24, 8), "wide": (4, 8), "gain": (8,)}
    made = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}
    for weight in made.values():
        weight.grad = torch.zeros_like(weight)
    return made


def give_gradients(parameters: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in parameters.values():
        assert weight.grad is not None
        weight.grad.copy_(torch.randn(weight.shape, generator=generator))


def take_steps(parameters: dict[str, nn.Parameter], optimizers: Optimizers, first: int, count: int) -> None:
    for number in range(first, first + count):
        give_gradients(parameters, number)
        optimizers.set_factor(0.5)
        optimizers.step()


def test_the_parts_of_a_stack_are_optimised_each_by_itself() -> None:
    stacked = weights()
    apart = {
        f"part{n}": nn.Parameter(part.clone()) for n, part in enumerate(stacked["stacked"].data.chunk(3))
    }
    gradient = torch.randn(24, 8, generator=torch.Generator().manual_seed(1))
    stacked["stacked"].grad = gradient.clone()
    for part, piece in zip(apart.values(), gradient.chunk(3), strict=True):
        part.grad = piece.clone()
    Optimizers({"stacked": stacked["stacked"]}, {"stacked": 3}, CONFIG).step()
    Optimizers(apart, dict.fromkeys(apart, 1), CONFIG).step()
    assert torch.equal(stacked["stacked"], torch.cat(list(apart.values())))


def test_a_saved_state_goes_on_exactly() -> None:
    matrices = {"stacked": 3, "wide": 1}
    whole, begun = weights(), weights()
    take_steps(whole, Optimizers(whole, matrices, CONFIG), 0, 6)
    first = Optimizers(begun, matrices, CONFIG)
    take_steps(begun, first, 0, 4)
    state: dict[str, Tensor] = {name: tensor.clone() for name, tensor in first.state().items()}
    second = Optimizers(begun, matrices, CONFIG)
    second.load_state(state)
    take_steps(begun, second, 4, 2)
    assert all(torch.equal(whole[name], begun[name]) for name in whole)


def test_matrices_that_are_not_trained_are_passed_over() -> None:
    only = {"gain": weights()["gain"]}
    optimizers = Optimizers(only, {"stacked": 3}, CONFIG)
    before = only["gain"].detach().clone()
    take_steps(only, optimizers, 0, 1)
    assert not torch.equal(only["gain"], before)


@pytest.mark.parametrize("share", [APART, TOGETHER])
def test_muon_is_torchs_muon(share: float) -> None:
    ours, theirs = weights(), weights()
    del ours["gain"], theirs["gain"]
    muon = Muon(list(ours.values()), torch.tensor(0.02), decay=0.1, share=share)
    reference = torch.optim.Muon(theirs.values(), lr=0.02, weight_decay=0.1)
    for number in range(5):
        for parameters in (ours, theirs):
            give_gradients(parameters, number)
        muon.step()
        reference.step()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=2e-3)  # bfloat16 inside


def test_a_smaller_matrix_in_a_batch_is_optimised_as_by_itself() -> None:
    together, apart = weights(), weights()
    for parameters, share in ((together, TOGETHER), (apart, APART)):
        give_gradients(parameters, 0)
        muon = Muon([parameters["stacked"], parameters["wide"]], torch.tensor(0.02), 0.1, share)
        muon.step()
        assert [momentum.shape for momentum in muon.momenta] == [(8, 24), (4, 8)]
    for name, weight in together.items():
        torch.testing.assert_close(weight, apart[name], rtol=0, atol=2e-3)  # bfloat16 inside


def test_momenta_go_from_one_batch_to_several() -> None:
    parameters = weights()
    muons = [
        Muon([parameters["stacked"], parameters["wide"]], torch.tensor(0.02), 0.1, share)
        for share in (TOGETHER, APART)
    ]
    give_gradients(parameters, 0)
    muons[0].step()
    before = [momentum.clone() for momentum in muons[0].momenta]
    for momentum, saved in zip(muons[1].momenta, before, strict=True):
        momentum.copy_(saved)
    for muon in muons:
        muon.step()
    for one, other in zip(muons[0].momenta, muons[1].momenta, strict=True):
        torch.testing.assert_close(one, other)


def test_a_state_of_other_matrices_is_refused() -> None:
    saved = Optimizers(weights(), {"wide": 1}, CONFIG).state()
    with pytest.raises(CellularError, match="--restart"):
        Optimizers(weights(), {"stacked": 3, "wide": 1}, CONFIG).load_state(saved)
