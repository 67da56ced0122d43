"""Perceiving is a convolution of the cross or the cube."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.lattice import perceive
from cellular.lattice.perceive import (
    Neighbours,
    Padding,
    Perceive,
    View,
    convolve,
    gather_neighbours,
    offsets,
    stack_neighbours,
)

views = pytest.mark.parametrize("view", [View(n, p) for n in (6, 26) for p in ("zeros", "replicate")])


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def by_conv3d(state_BXYZC: Tensor, weight_OP: Tensor, view: View) -> Tensor:
    """By PyTorch's own convolution."""
    mode: Literal["constant", "replicate"] = "constant" if view.padding == "zeros" else "replicate"
    padded = F.pad(state_BXYZC.movedim(-1, 1), (1,) * 6, mode)
    kernel = weight_OP.new_zeros(len(weight_OP), state_BXYZC.shape[-1], 3, 3, 3)
    parts = weight_OP.view(len(weight_OP), view.cells, -1).unbind(1)
    for (dx, dy, dz), part in zip(offsets(view.neighbours), parts, strict=True):
        kernel[:, :, dx + 1, dy + 1, dz + 1] = part
    return F.conv3d(padded, kernel).movedim(1, -1)


@views
def test_it_equals_a_convolution_with_its_gradients(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceive, "_CACHE_BYTES", 40_000)  # several parts, the last a smaller one
    layer = Perceive(4, 5, view).double()
    state_BXYZC = random(3, 4, 3, 5, 4).requires_grad_()
    found, expected = layer(state_BXYZC), by_conv3d(state_BXYZC, layer.weight, view)
    torch.testing.assert_close(found, expected)
    upstream = random(*found.shape)
    for mine, other in zip(
        torch.autograd.grad(found, (state_BXYZC, layer.weight), upstream),
        torch.autograd.grad(expected, (state_BXYZC, layer.weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


@views
def test_gradients_are_those_of_finite_differences(view: View) -> None:
    layer = Perceive(2, 3, view).double()
    assert torch.autograd.gradcheck(layer, random(2, 2, 3, 2, 2).requires_grad_())


@views
def test_it_is_a_product_with_the_gathered_neighbours(view: View) -> None:
    layer, state_BXYZC = Perceive(3, 5, view).double(), random(2, 3, 1, 4, 3)
    expected = gather_neighbours(state_BXYZC, view).flatten(4) @ layer.weight.t()
    torch.testing.assert_close(layer(state_BXYZC), expected)


@pytest.mark.parametrize(("neighbours", "furthest"), [(6, 1), (26, 3)])
def test_offsets_are_the_cell_and_then_its_neighbours(neighbours: Neighbours, furthest: int) -> None:
    steps = offsets(neighbours)
    assert steps[0] == (0, 0, 0) and len(set(steps)) == neighbours + 1
    assert max(sum(map(abs, step)) for step in steps) == furthest


@pytest.mark.parametrize(("padding", "beyond"), [("zeros", 0.0), ("replicate", 1.0)])
def test_beyond_the_border_is_what_was_stated(padding: Padding, beyond: float) -> None:
    alone = gather_neighbours(torch.ones(1, 1, 1, 1, 1), View(6, padding)).flatten()
    assert alone.tolist() == [1.0] + 6 * [beyond]


@views
def test_all_ways_to_compute_agree(view: View) -> None:
    state_BXYZC, weight = random(2, 3, 4, 3, 6), random(5, view.cells * 6)
    gathered = gather_neighbours(state_BXYZC, view).flatten(4) @ weight.t()
    torch.testing.assert_close(convolve(state_BXYZC, weight, view), gathered)
    torch.testing.assert_close(stack_neighbours(state_BXYZC, view) @ weight.t(), gathered)


def test_half_precision_agrees_with_full_precision() -> None:
    view = View(6, "zeros")
    layer, state_BXYZC = Perceive(8, 8, view), random(2, 4, 4, 4, 8, dtype=torch.float32)
    full = layer(state_BXYZC)
    half = layer.bfloat16()(state_BXYZC.bfloat16())
    torch.testing.assert_close(half.float(), full, atol=0.05, rtol=0.05)
