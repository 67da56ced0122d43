"""The hidden layer's kernels against the rule's operations; off the GPU Triton's interpreter runs them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.lattice import Lattice3D, LatticeConfig
from cellular.lattice.fused import fused_hidden
from cellular.lattice.perceive import View, gather_neighbours
from tests.unit.ret.conftest import DEVICE, runs_kernels

HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter has no bfloat16
SHAPES = [(2, 3, 4, 5, 32), (3, 2, 2, 2, 6), (1, 1, 1, 3, 16), (1, 4, 2, 8, 96), (5, 3, 3, 3, 64)]
pytestmark = runs_kernels


def arguments(shape: tuple[int, ...], hidden: int, dtype: torch.dtype) -> list[Tensor]:
    """Seen, inward and outward."""
    draw = torch.Generator().manual_seed(hidden)
    channels = shape[-1]
    parts = (
        torch.randn(shape, generator=draw),
        torch.randn(hidden, 7 * channels, generator=draw) / (7 * channels) ** 0.5,
        torch.randn(channels, hidden, generator=draw) / hidden**0.5,
    )
    return [part.to(DEVICE, dtype).requires_grad_() for part in parts]


def by_operations(seen_BXYZC: Tensor, inward_HV: Tensor, outward_CH: Tensor) -> Tensor:
    rows_BXYZV = gather_neighbours(seen_BXYZC, View(6, "zeros")).flatten(-2)
    return F.linear(F.gelu(F.linear(rows_BXYZV, inward_HV)), outward_CH)


def with_gradients(layer: object, parts: list[Tensor]) -> list[Tensor]:
    y_BXYZC = layer(*parts)  # type: ignore[operator]
    weights = torch.linspace(-1, 1, y_BXYZC.numel(), device=DEVICE).view(y_BXYZC.shape).to(y_BXYZC.dtype)
    return [y_BXYZC, *torch.autograd.grad(y_BXYZC, parts, weights)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_answers_and_gradients_are_the_rules(shape: tuple[int, ...], times: int) -> None:
    parts = arguments(shape, times * shape[-1], torch.float32)
    exact = [part.detach().double().requires_grad_() for part in parts]
    found, wanted = with_gradients(fused_hidden, parts), with_gradients(by_operations, exact)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_half_precision_is_as_near_as_its_rounding() -> None:
    parts = arguments((3, 4, 4, 4, 32), 64, HALF)
    exact = [part.detach().double().requires_grad_() for part in parts]
    found, wanted = with_gradients(fused_hidden, parts), with_gradients(by_operations, exact)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == HALF
        assert (ours - theirs).norm() < 4 * torch.finfo(HALF).eps * theirs.norm()


def test_more_cells_than_a_program_sums_are_all_counted() -> None:
    parts = arguments((70, 8, 8, 8, 4), 8, torch.float32)
    exact = [part.detach().double().requires_grad_() for part in parts]
    found, wanted = with_gradients(fused_hidden, parts), with_gradients(by_operations, exact)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).abs().max() < 2e-5 * theirs.abs().max()


def test_a_compiler_takes_the_kernels_as_they_are() -> None:
    compiled = torch.compile(fused_hidden, backend="aot_eager", dynamic=False, fullgraph=True)
    parts = arguments((2, 3, 3, 3, 16), 32, torch.float32)
    for one, two in zip(with_gradients(compiled, parts), with_gradients(fused_hidden, parts), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("rule", ["nca", "mlp"])
def test_a_rule_is_the_same_with_and_without_kernels(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    torch.manual_seed(0)
    shape = LatticeConfig(embedding_dimension=32, size=(3, 2, 2), steps=3, channels=16, rule=rule)
    lattice, embeddings_BE = Lattice3D(shape).to(DEVICE).eval(), torch.randn(2, 32, device=DEVICE)
    found = []
    for fused in (True, False):
        monkeypatch.setattr("cellular.lattice.rules.hidden.has_kernels", lambda *_, fused=fused: fused)
        y_BE = lattice(embeddings_BE)
        found.append([y_BE, *torch.autograd.grad(y_BE[:, 0].sum(), list(lattice.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() < 1e-3 * (1e-3 + theirs.abs().max())
