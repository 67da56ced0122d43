"""The scans in C: sizes that fill registers and others, threads, and machines without a compiler."""

import functools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.errors import CellularError
from cellular.ssm import selective_scan, selective_scan_ref, ssd_scan, ssd_scan_ref
from cellular.ssm.native import library
from tests.unit.test_ssm import ARGUMENTS, Scan, gradients

compiled_ssd = functools.partial(ssd_scan, compiled=True)
compiled_selective = functools.partial(selective_scan, compiled=True)


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def by_head(
    draw: torch.Generator, batch: int, length: int, heads: int, width: int, state: int
) -> list[Tensor]:
    shapes = (batch, length, heads, width), (batch, length, heads), (batch, length, state)
    x, delta, b = (torch.randn(shape, generator=draw) for shape in shapes)
    c, a = torch.randn(shapes[2], generator=draw), -torch.rand(heads, generator=draw)
    first = torch.randn(batch, heads, width, state, generator=draw)
    return [part.requires_grad_() for part in (x, F.softplus(delta), a, b, c, first)]


def by_channel(draw: torch.Generator, batch: int, length: int, channels: int, state: int) -> list[Tensor]:
    x, delta = (torch.randn(batch, length, channels, generator=draw) for _ in range(2))
    b, c = (torch.randn(batch, length, state, generator=draw) for _ in range(2))
    a, first = (torch.rand(*size, channels, state, generator=draw) for size in ((), (batch,)))
    return [part.requires_grad_() for part in (x, F.softplus(delta), -a, b, c, first)]


def assert_near_exact(scan: Scan, reference: Scan, parts: list[Tensor]) -> None:
    exact = [part.detach().double().requires_grad_() for part in parts]
    found = *scan(*parts), *gradients(scan, parts)
    wanted = *reference(*exact), *gradients(reference, exact)
    for name, ours, theirs in zip(("y", "last", *ARGUMENTS), found, wanted, strict=True):
        assert (ours - theirs).abs().max() < 1e-4 * (1 + theirs.abs().max()), name


@pytest.mark.parametrize(
    ("heads", "width", "state"), [(2, 32, 16), (1, 40, 17), (3, 64, 32), (1, 16, 1), (2, 100, 3)]
)
def test_heads_of_any_size(draw: torch.Generator, heads: int, width: int, state: int) -> None:
    assert_near_exact(compiled_ssd, ssd_scan_ref, by_head(draw, 3, 37, heads, width, state))


@pytest.mark.parametrize(("channels", "state"), [(64, 16), (37, 20), (16, 1)])
def test_channels_of_any_number(draw: torch.Generator, channels: int, state: int) -> None:
    assert_near_exact(compiled_selective, selective_scan_ref, by_channel(draw, 3, 37, channels, state))


def test_threads_change_nothing(draw: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, others = by_head(draw, 5, 20, 2, 8, 4), by_channel(draw, 5, 20, 8, 4)

    def found() -> list[Tensor]:
        return [*gradients(compiled_ssd, parts), *gradients(compiled_selective, others)]

    alone = found()
    monkeypatch.setattr(library, "_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(map(torch.equal, alone, found()))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CC", "no-such-compiler")
    for cached in (library._library, library._compiles):
        cached.cache_clear()
    yield
    for cached in (library._library, library._compiles):
        cached.cache_clear()


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_operations_do_it(draw: torch.Generator) -> None:
    parts, others = by_head(draw, 2, 20, 2, 8, 4), by_channel(draw, 2, 20, 8, 4)
    assert torch.equal(ssd_scan(*parts)[0], ssd_scan(*parts, compiled=False)[0])
    assert torch.equal(selective_scan(*others)[0], selective_scan(*others, compiled=False)[0])
    for scan, arguments in ((compiled_ssd, parts), (compiled_selective, others)):
        with pytest.raises(CellularError, match="needs a C compiler"):
            scan(*arguments)


@pytest.mark.parametrize("scan", [compiled_ssd, compiled_selective], ids=["per head", "per channel"])
def test_a_compiler_takes_the_kernels_as_they_are(draw: torch.Generator, scan: Scan) -> None:
    parts = by_head(draw, 2, 20, 2, 8, 4) if scan is compiled_ssd else by_channel(draw, 2, 20, 8, 4)
    again = torch.compile(scan, backend="aot_eager", dynamic=False, fullgraph=True)
    assert all(map(torch.equal, gradients(scan, parts), gradients(again, parts)))
