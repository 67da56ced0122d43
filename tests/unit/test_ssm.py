"""The fast scans are the recurrence, gradients included; a block's steps are its full pass."""

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.ssm import MambaBlock, MambaState, selective_scan, selective_scan_ref, ssd_scan, ssd_scan_ref

Scan = Callable[..., tuple[Tensor, Tensor]]
ARGUMENTS = ("x", "delta", "a", "b", "c", "state")


def ssd_arguments(
    batch: int, length: int, *, dtype: torch.dtype = torch.float64, decay: float = 1, seed: int = 0
) -> list[Tensor]:
    """x, delta, a, b, c and a state of 2 heads of 3 channels, with 4 state components."""
    draw = torch.Generator().manual_seed(seed)
    shapes = (
        (batch, length, 2, 3),
        (batch, length, 2),
        (2,),
        (batch, length, 4),
        (batch, length, 4),
        (batch, 2, 3, 4),
    )
    x, delta, a, b, c, state = (torch.randn(shape, generator=draw, dtype=dtype) for shape in shapes)
    return [part.requires_grad_() for part in (x, F.softplus(delta), -decay * a.exp(), b, c, state)]


def scan_arguments(
    batch: int, length: int, *, dtype: torch.dtype = torch.float64, decay: float = 1, seed: int = 0
) -> list[Tensor]:
    """x, delta, a, b, c and a state of 5 channels with 4 state components."""
    draw = torch.Generator().manual_seed(seed)
    shapes = (
        (batch, length, 5),
        (batch, length, 5),
        (5, 4),
        (batch, length, 4),
        (batch, length, 4),
        (batch, 5, 4),
    )
    x, delta, a, b, c, state = (torch.randn(shape, generator=draw, dtype=dtype) for shape in shapes)
    return [part.requires_grad_() for part in (x, F.softplus(delta), -decay * a.exp(), b, c, state)]


FORMS = {
    "per head": (ssd_scan, ssd_scan_ref, ssd_arguments),
    "per channel": (selective_scan, selective_scan_ref, scan_arguments),
    "per head, by operations": (functools.partial(ssd_scan, compiled=False), ssd_scan_ref, ssd_arguments),
    "per channel, by operations": (
        functools.partial(selective_scan, compiled=False),
        selective_scan_ref,
        scan_arguments,
    ),
}
forms = pytest.mark.parametrize(("fast", "reference", "make"), FORMS.values(), ids=FORMS.keys())


def gradients(scan: Scan, arguments: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a loss that weighs every output and state component differently."""
    y, state = scan(*arguments)
    loss = (y * torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y)).sum() + state.sin().sum()
    return torch.autograd.grad(loss, arguments)


def assert_same(fast: Scan, reference: Scan, arguments: list[Tensor], **tolerance: float) -> None:
    for ours, theirs in zip(fast(*arguments), reference(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)
    for name, ours, theirs in zip(
        ARGUMENTS, gradients(fast, arguments), gradients(reference, arguments), strict=True
    ):
        torch.testing.assert_close(ours, theirs, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@forms
@pytest.mark.parametrize("length", [1, 31, 32, 33, 70])
def test_outputs_state_and_gradients_are_the_recurrences(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]], length: int
) -> None:
    assert_same(fast, reference, make(2, length), rtol=1e-10, atol=1e-10)


@forms
def test_float32_is_as_near_as_its_rounding(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]]
) -> None:
    assert_same(fast, reference, make(3, 100, dtype=torch.float32), rtol=1e-4, atol=1e-4)


@forms
@pytest.mark.parametrize("length", [1, 5])
def test_gradients_are_those_of_finite_differences(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]], length: int
) -> None:
    assert torch.autograd.gradcheck(lambda *parts: fast(*parts, chunk=3), make(1, length))


@forms
@pytest.mark.parametrize("decay", [0, 1e-6, 100, 1e6])
def test_no_decay_however_strong_or_weak_over_or_underflows_into_an_error(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]], decay: float
) -> None:
    arguments = make(2, 300, dtype=torch.float32, decay=decay)
    assert_same(fast, reference, arguments, rtol=1e-3, atol=1e-3 if decay else 3e-2)


@forms
def test_a_strong_decay_costs_later_positions_no_precision(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]]
) -> None:
    x, delta, *rest = (part.detach() for part in make(1, 32, dtype=torch.float32))
    delta[:, 4] = 1e7
    delta[:, 5:] *= 1e-2
    y = fast(x, delta, *rest)[0][:, 5:]
    exact = reference(*(part.double() for part in (x, delta, *rest)))[0][:, 5:]
    assert ((y - exact).abs() < 1e-5 * exact.abs().max()).all()


@forms
def test_the_chunk_size_does_not_matter(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]]
) -> None:
    arguments = make(2, 45)
    for chunk in (1, 2, 16, 45, 64):
        assert_same(lambda *parts: fast(*parts, chunk=chunk), fast, arguments, rtol=1e-10, atol=1e-10)  # noqa: B023


@forms
def test_segments_that_pass_on_their_state_are_one_sequence(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]]
) -> None:
    x, delta, a, b, c, state = make(2, 50)
    whole, last = fast(x, delta, a, b, c, state)
    parts = []
    for now in (slice(0, 7), slice(7, 40), slice(40, 50)):
        y, state = fast(x[:, now], delta[:, now], a, b[:, now], c[:, now], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(state, last)


@forms
def test_texts_do_not_see_each_other_nor_positions_later_ones(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]]
) -> None:
    x, *rest = make(3, 40)
    y = fast(x, *rest)[0]
    (gradient,) = torch.autograd.grad(y[1, 20].sum(), x)
    reached = gradient.flatten(2).abs().sum(2) > 0
    expected = torch.zeros(3, 40, dtype=torch.bool)
    expected[1, :21] = True
    assert torch.equal(reached, expected)


@forms
def test_bfloat16_inputs_keep_a_float32_state(
    fast: Scan, reference: Scan, make: Callable[..., list[Tensor]]
) -> None:
    arguments = [part.detach().bfloat16() for part in make(2, 40)]
    y, state = fast(*arguments)
    expected, expected_state = reference(*arguments)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y, expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(state, expected_state, rtol=0.02, atol=0.02)


@forms
def test_autocast_changes_nothing(fast: Scan, reference: Scan, make: Callable[..., list[Tensor]]) -> None:
    arguments = make(2, 40, dtype=torch.float32)
    expected = fast(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        for ours, theirs in zip(fast(*arguments), expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # inductor's own
def test_compiled_code_is_the_recurrence() -> None:
    compiled = functools.partial(selective_scan, chunk=2, compiled=True)
    assert_same(compiled, selective_scan_ref, scan_arguments(2, 5), rtol=1e-10, atol=1e-10)


def test_the_reference_is_the_papers_equations() -> None:
    x, delta, a, b, c, state = (part.detach() for part in scan_arguments(1, 3))
    y, last = selective_scan_ref(x, delta, a, b, c, state)
    for channel in range(5):
        h = state[0, channel]
        for t in range(3):
            step = delta[0, t, channel]
            h = torch.exp(step * a[channel]) * h + step * b[0, t] * x[0, t, channel]
            torch.testing.assert_close(y[0, t, channel], c[0, t] @ h)
        torch.testing.assert_close(last[0, channel], h)


@pytest.fixture
def block() -> MambaBlock:
    torch.manual_seed(0)
    block = MambaBlock(24, state=8, head_width=16).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return block


@pytest.fixture
def sequence() -> Tensor:
    return torch.randn(3, 37, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_steps_of_a_block_are_its_full_pass(block: MambaBlock, sequence: Tensor) -> None:
    state, outputs = block.start(3), []
    for x_BW in sequence.unbind(1):
        y_BW, state = block.step(x_BW, state)
        outputs.append(y_BW)
    torch.testing.assert_close(torch.stack(outputs, 1), block(sequence))


def test_segments_of_a_block_are_its_full_pass(block: MambaBlock, sequence: Tensor) -> None:
    state, outputs = block.start(3), []
    for segment in sequence.split([1, 2, 30, 4], 1):
        y_BLW, state = block.advance(segment, state)
        outputs.append(y_BLW)
    torch.testing.assert_close(torch.cat(outputs, 1), block(sequence))


def test_a_block_reads_no_later_position_and_no_other_text(block: MambaBlock, sequence: Tensor) -> None:
    changed = sequence.clone()
    changed[1, 20] += 1
    differs = (block(changed) != block(sequence)).any(2)
    assert differs[1, 20:].all()
    assert differs.sum() == differs[1, 20:].sum()


def test_absent_positions_in_front_of_a_sequence_change_nothing_behind_them(
    block: MambaBlock, sequence: Tensor
) -> None:
    present_BL = torch.arange(sequence.shape[1]).expand(len(sequence), -1) >= 3
    torch.testing.assert_close(block(sequence, present_BL)[:, 3:], block(sequence[:, 3:]))
    torch.testing.assert_close(block(sequence, torch.ones_like(present_BL)), block(sequence))


def test_every_parameter_of_a_block_learns(block: MambaBlock, sequence: Tensor) -> None:
    block(sequence).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_block_under_autocast_is_near_float32(block: MambaBlock, sequence: Tensor) -> None:
    block, x_BLW = block.float(), sequence.float()
    with torch.autocast("cpu", torch.bfloat16):
        y_BLW = block(x_BLW)
    torch.testing.assert_close(y_BLW.float(), block(x_BLW), rtol=0.05, atol=0.05)


def test_a_state_has_one_size(block: MambaBlock, sequence: Tensor) -> None:
    first: MambaState = block.start(3)
    _, last = block.advance(sequence, first)
    assert [part.shape for part in last] == [part.shape for part in first]


def test_an_inner_width_that_heads_do_not_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of head_width 32, not 40"):
        MambaBlock(20)
