import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cellular.decoders.ret.quantization import (
    GROUP,
    Bits,
    FakeQuantiser,
    QuantizedMatrix,
    pack_nibbles,
    quantise,
    search_scales,
    unpack_nibbles,
)

BOTH: list[Bits] = [4, 8]


def weights(seed: int, rows: int = 8, columns: int = 64) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(-8, 7), max_size=65))
def test_codes_survive_packing_whatever_they_are(codes: list[int]) -> None:
    tensor = torch.tensor(codes, dtype=torch.int8)
    packed = pack_nibbles(tensor)
    assert packed.dtype == torch.uint8
    assert packed.numel() == (len(codes) + 1) // 2
    assert unpack_nibbles(packed, len(codes)).tolist() == codes


def test_the_first_of_two_codes_is_in_the_low_half() -> None:
    assert pack_nibbles(torch.tensor([-8, 7, 1], dtype=torch.int8)).tolist() == [0xF0, 0x09]


@given(
    st.lists(st.integers(-8, 7), min_size=64, max_size=64),
    st.lists(st.floats(2.0**-14, 4.0, width=16), min_size=2, max_size=2),
    st.booleans(),
)
def test_weights_on_a_grid_of_four_bits_are_kept_bit_for_bit(
    codes: list[int], scales: list[float], negative: bool
) -> None:
    sign = -1 if negative else 1
    matrix = QuantizedMatrix(
        torch.tensor([codes], dtype=torch.int8), sign * torch.tensor([scales], dtype=torch.float16)
    )
    weight_RC = matrix.dequantise()
    assert torch.equal(quantise(weight_RC, 4).dequantise(), weight_RC)


@pytest.mark.parametrize("bits", BOTH)
def test_rounding_twice_changes_nothing(bits: Bits) -> None:
    once = quantise(weights(0), bits).dequantise()
    assert torch.equal(quantise(once, bits).dequantise(), once)


@pytest.mark.parametrize("bits", BOTH)
def test_no_weight_moves_further_than_half_a_step_unless_clipped(bits: Bits) -> None:
    weight_RC = weights(1)
    matrix = quantise(weight_RC, bits)
    steps = matrix.scales.float().abs().repeat_interleave(GROUP[bits] or 64, 1)
    least, most = (-8, 7) if bits == 4 else (-127, 127)
    inside = (matrix.codes > least) & (matrix.codes < most)
    error = (matrix.dequantise() - weight_RC).abs()
    assert (error <= steps * 0.5001)[inside].all()


def test_searched_scales_lose_less_than_the_peak_gives() -> None:
    weight_RC = weights(2, 64, 256)
    groups = weight_RC.view(64, -1, 32)
    step = groups.abs().amax(-1, keepdim=True) / 7
    plain = ((groups / step).round() * step).flatten(1)
    searched = quantise(weight_RC, 4).dequantise()
    assert (searched - weight_RC).square().sum() < 0.9 * (plain - weight_RC).square().sum()


def test_scales_serve_the_columns_that_matter() -> None:
    weight_RC = weights(3, 64, 32)
    importance_C = torch.ones(32)
    importance_C[:4] = 100.0
    plain, weighed = search_scales(weight_RC, 4), search_scales(weight_RC, 4, importance_C=importance_C)

    def loss(scales: Tensor) -> Tensor:
        codes = (weight_RC / scales.float()).round().clamp(-8, 7)
        return ((codes * scales.float() - weight_RC).square() * importance_C).sum()

    assert loss(weighed) < loss(plain)


@pytest.mark.parametrize("bits", BOTH)
def test_a_matrix_of_zeros_stays_one(bits: Bits) -> None:
    assert not quantise(torch.zeros(2, 32), bits).dequantise().any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantise(torch.full((1, 32), value), 4)


def test_groups_divide_a_row() -> None:
    with pytest.raises(ValueError, match="groups of 32 weights do not divide 40 columns"):
        quantise(torch.ones(1, 40), 4)


def test_weights_are_rounded_inside_and_themselves_again_outside() -> None:
    weight_RC = weights(4)
    before = weight_RC.clone()
    quantiser = FakeQuantiser({"weight": weight_RC}, 4)
    with quantiser:
        assert torch.equal(weight_RC, quantise(before, 4).dequantise())
    assert torch.equal(weight_RC, before)


def test_training_through_rounding_ends_nearer_than_rounding_after_training() -> None:
    shared = weights(7, 512, 1)  # so that errors of several columns can make up for each other
    inputs, target_RC = weights(5, 512, 32) + 0.9 * shared, weights(6, 8, 32)

    def loss(weight_RC: Tensor) -> Tensor:
        return (inputs @ (weight_RC - target_RC).T).square().mean()

    parameter = target_RC.clone().requires_grad_()
    quantiser = FakeQuantiser({"weight": parameter.data}, 4)
    optimizer = torch.optim.SGD([parameter], 3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        with quantiser:
            loss(parameter).backward()
        optimizer.step()
    trained = quantise(parameter.detach(), 4).dequantise()
    assert loss(trained) < 0.9 * loss(quantise(target_RC, 4).dequantise())
