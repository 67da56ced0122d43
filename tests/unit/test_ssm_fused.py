"""The scan's kernels against the recurrence; off the GPU, Triton's interpreter runs them if told to."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.ssm import MambaBlock, ssd_scan_ref
from cellular.ssm.fused import fused_mix, fused_scan
from tests.unit.ret.conftest import DEVICE, runs_kernels
from tests.unit.test_ssm import ARGUMENTS, assert_same, gradients

HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter has no bfloat16
pytestmark = runs_kernels


def arguments(
    length: int, *, width: int = 32, state: int = 16, decay: float = 1, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """x, delta, a, b, c and a state of 2 texts and 2 heads; x, b and c are parts of one tensor."""
    draw = torch.Generator().manual_seed(length)
    mixed = torch.randn(2, length, 2 * width + 2 * state, generator=draw)
    delta, a = F.softplus(torch.randn(2, length, 2, generator=draw)), torch.randn(2, generator=draw).exp()
    first = torch.randn(2, 2, width, state, generator=draw)
    x, b, c = mixed.to(DEVICE, dtype).split([2 * width, state, state], 2)
    parts = x.unflatten(2, (2, width)), delta.to(dtype), (-decay * a).to(dtype), b, c, first
    return [part.to(DEVICE).requires_grad_() for part in parts]


def distance(found: Tensor, exact: Tensor) -> float:
    """Relative to the largest."""
    return float((found.detach() - exact.detach()).abs().max() / exact.detach().abs().max())


@pytest.mark.parametrize(("length", "width", "state"), [(1, 32, 16), (63, 3, 4), (64, 32, 16), (65, 48, 8)])
def test_outputs_state_and_gradients_are_the_recurrences(length: int, width: int, state: int) -> None:
    parts = arguments(length, width=width, state=state)
    assert_same(fused_scan, ssd_scan_ref, parts, rtol=1e-3, atol=1e-4)


def test_many_chunks_are_one_sequence() -> None:
    assert_same(fused_scan, ssd_scan_ref, arguments(512, decay=0.02), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("decay", [0, 1e-6, 100, 1e6])
def test_no_decay_however_strong_or_weak_over_or_underflows_into_an_error(decay: float) -> None:
    parts = arguments(150, decay=decay)
    exact = [part.detach().double().requires_grad_() for part in parts]
    found = *fused_scan(*parts), *gradients(fused_scan, parts)
    wanted = *ssd_scan_ref(*exact), *gradients(ssd_scan_ref, exact)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).abs().max() < 1e-3 * (1 + theirs.abs().max())


def test_a_strong_decay_costs_later_positions_no_precision() -> None:
    x, delta, *rest = (part.detach() for part in arguments(64))
    delta[:, 4] = 1e7
    delta[:, 5:] *= 1e-2
    y = fused_scan(x, delta, *rest)[0][:, 5:]
    exact = ssd_scan_ref(*(part.double() for part in (x, delta, *rest)))[0][:, 5:]
    assert distance(y, exact) < 1e-4


def test_absent_positions_change_nothing_behind_them() -> None:
    x, delta, a, b, c, state = (part.detach() for part in arguments(70))
    delta[:, :40] = 0
    y, last = fused_scan(x, delta, a, b, c, state)
    exact, exact_last = fused_scan(x[:, 40:], delta[:, 40:], a, b[:, 40:], c[:, 40:], state)
    assert distance(y[:, 40:], exact) < 1e-5
    assert distance(last, exact_last) < 1e-5


def test_half_precision_is_as_near_as_its_rounding() -> None:
    parts = arguments(100, decay=0.1, dtype=HALF)
    exact = [part.detach().double().requires_grad_() for part in parts]
    y, last = fused_scan(*parts)
    assert (y.dtype, last.dtype) == (HALF, torch.float32)
    bound = 8 * torch.finfo(HALF).eps
    for found, wanted in zip((y, last), ssd_scan_ref(*exact), strict=True):
        assert distance(found, wanted) < bound
    both = zip(ARGUMENTS, gradients(fused_scan, parts), gradients(ssd_scan_ref, exact), strict=True)
    for name, found, wanted in both:
        assert distance(found, wanted) < bound, name


def test_a_last_state_alone_has_gradients_too() -> None:
    parts = arguments(20)
    found, wanted = (
        torch.autograd.grad(scan(*parts)[1].sum(), parts, allow_unused=True, materialize_grads=True)
        for scan in (fused_scan, ssd_scan_ref)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_compiler_takes_the_kernels_as_they_are() -> None:
    compiled = torch.compile(fused_scan, backend="aot_eager", dynamic=False, fullgraph=True)
    assert_same(compiled, fused_scan, arguments(70), rtol=0, atol=0)


def mixer_arguments(length: int, heads: int, width: int, state: int, dtype: torch.dtype) -> list[Tensor]:
    """Mixed, a part of something wider, then taps, bias, delta, a and skip."""
    draw = torch.Generator().manual_seed(length)
    channels = heads * width + 2 * state
    wide, delta = (torch.randn(2, length, size, generator=draw) for size in (channels + 5, heads))
    taps, bias = 0.5 * torch.randn(4, channels, generator=draw), torch.randn(channels, generator=draw)
    a, skip = -0.5 - torch.rand(heads, generator=draw), torch.randn(heads, generator=draw)
    parts = wide.to(DEVICE, dtype)[..., 3:-2], taps, bias, F.softplus(delta), a, skip
    return [part.to(DEVICE, dtype).requires_grad_() for part in parts]


def mix_by_operations(
    mixed: Tensor, taps: Tensor, bias: Tensor, delta: Tensor, a: Tensor, skip: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    sums = F.conv1d(F.pad(mixed, (0, 0, 3, 0)).mT, taps.T[:, None], bias, groups=len(bias)).mT
    inner = len(a) * width
    state = (mixed.shape[2] - inner) // 2
    x, b, c = F.silu(sums).split([inner, state, state], 2)
    x = x.unflatten(2, (-1, width))
    y, last = ssd_scan_ref(x, delta, a, b, c)
    return y + skip[:, None] * x, last


@pytest.mark.parametrize(
    ("length", "heads", "width", "state"), [(1, 1, 8, 4), (3, 2, 32, 16), (70, 3, 16, 24)]
)
def test_a_mixer_is_convolution_silu_scan_and_skip(length: int, heads: int, width: int, state: int) -> None:
    parts = mixer_arguments(length, heads, width, state, torch.float32)
    exact = [part.detach().double().requires_grad_() for part in parts]
    ours, theirs = (functools.partial(mix, width=width) for mix in (fused_mix, mix_by_operations))
    found = *ours(*parts), *gradients(ours, parts)
    wanted = *theirs(*exact), *gradients(theirs, exact)
    for one, two in zip(found, wanted, strict=True):
        assert (one - two).abs().max() < 1e-4 * (1 + two.abs().max())


def test_a_mixer_in_half_precision_is_as_near_as_its_rounding() -> None:
    parts = mixer_arguments(70, 2, 32, 16, HALF)
    exact = [part.detach().double().requires_grad_() for part in parts]
    ours, theirs = (functools.partial(mix, width=32) for mix in (fused_mix, mix_by_operations))
    found = *ours(*parts), *gradients(ours, parts)
    wanted = *theirs(*exact), *gradients(theirs, exact)
    for one, two in zip(found, wanted, strict=True):
        assert (one - two).norm() < 4 * torch.finfo(HALF).eps * two.norm()


def test_a_compiler_takes_the_mixer_as_it_is() -> None:
    mix = functools.partial(fused_mix, width=16)
    compiled = torch.compile(mix, backend="aot_eager", dynamic=False, fullgraph=True)
    parts = mixer_arguments(40, 2, 16, 16, torch.float32)
    for one, two in zip(gradients(compiled, parts), gradients(mix, parts), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("length", [2, 70])
def test_a_block_is_the_same_with_and_without_kernels(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    torch.manual_seed(0)
    block, x_BLW = MambaBlock(32).to(DEVICE), torch.randn(2, length, 32, device=DEVICE)
    found = []
    for fused in (True, False):
        monkeypatch.setattr("cellular.ssm.block.mixes", lambda *_, fused=fused: fused)
        y_BLW, state = block.advance(x_BLW, None)
        found.append([y_BLW, *state, *torch.autograd.grad(y_BLW.square().sum(), list(block.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        assert distance(ours, theirs) < 1e-3


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_a_compiled_block_gives_in_a_cuda_graph_what_it_gives_without() -> None:
    block = MambaBlock(96).to(DEVICE, torch.bfloat16)
    compiled = torch.compile(block, dynamic=False, fullgraph=True)
    x_BLW = torch.randn(4, 512, 96, device=DEVICE, dtype=torch.bfloat16)
    weights = list(block.parameters())

    def found(module: torch.nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(module(x_BLW).float().square().sum(), weights)

    expected = found(block)
    for _ in range(3):
        found(compiled)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = found(compiled)
    graph.replay()
    for ours, theirs in zip(captured, expected, strict=True):
        assert distance(ours, theirs) < 0.05
