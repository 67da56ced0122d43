import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cellular.decoders.ret.sparsity import (
    MagnitudePruner,
    cubic_sparsity,
    largest,
    pack_mask,
    sparsity,
    unpack_mask,
)


def make_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(40, 64, generator=generator) for name in ("one", "two")}


@given(st.lists(st.booleans(), min_size=8, max_size=64).filter(lambda bits: len(bits) % 8 == 0))
def test_masks_survive_packing(bits: list[bool]) -> None:
    packed = pack_mask(torch.tensor([bits]))
    assert packed.shape == (1, len(bits) // 8)
    assert unpack_mask(packed).tolist() == [bits]


def test_the_first_column_is_the_lowest_bit() -> None:
    assert pack_mask(torch.tensor([True, True, False, False, False, False, False, True])).tolist() == [0x83]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8, 1.0])
def test_the_smallest_weights_go(share: float) -> None:
    weight = make_weights()["one"]
    mask = largest(weight, share)
    assert int((~mask).sum()) == round(share * weight.numel())
    if 0 < share < 1:
        assert weight[~mask].abs().max() <= weight[mask].abs().min()


def test_sparsity_grows_to_the_final_share_and_stays() -> None:
    course = [cubic_sparsity(done / 100, 0.8, 0.1, 0.6) for done in range(101)]
    assert course[:11] == [0.0] * 11
    assert course == sorted(course)
    assert set(course[60:]) == {0.8}
    assert course[35] > 0.8 / 2  # fast at first


def test_pruned_weights_stay_zero_whatever_the_optimiser_does() -> None:
    weights = make_weights()
    pruner = MagnitudePruner(weights, 0.8, end=0.5)
    zeros = []
    for step in range(20):
        for weight in weights.values():
            weight += 0.01
        pruner.step(step / 20)
        zeros.append(sparsity(weights))
    assert zeros == sorted(zeros)
    assert zeros[10:] == [pytest.approx(0.8)] * 10
    at_the_end = {name: weight == 0 for name, weight in weights.items()}
    for weight in weights.values():
        weight += 5.0
    pruner.step(1.0)
    assert all(torch.equal(weights[name] == 0, mask) for name, mask in at_the_end.items())


def test_each_matrix_is_pruned_by_the_same_share() -> None:
    weights = make_weights()
    weights["two"] *= 100
    MagnitudePruner(weights, 0.8).step(1.0)
    assert [sparsity({name: weight}) for name, weight in weights.items()] == [pytest.approx(0.8)] * 2


def test_an_average_is_pruned_as_the_weights_are() -> None:
    weights, averages = make_weights(), {name: torch.ones(40, 64) for name in ("one", "two")}
    pruner = MagnitudePruner(weights, 0.8)
    pruner.step(1.0)
    pruner.apply(averages)
    assert all(torch.equal(averages[name] == 0, weights[name] == 0) for name in weights)


def test_a_training_that_goes_on_keeps_its_zeros() -> None:
    weights = make_weights()
    MagnitudePruner(weights, 0.8, end=0.5).step(0.9)
    before = {name: weight.clone() for name, weight in weights.items()}
    resumed = MagnitudePruner(weights, 0.8, end=0.5)
    resumed.step(0.9)
    assert all(torch.equal(weights[name], before[name]) for name in weights)
