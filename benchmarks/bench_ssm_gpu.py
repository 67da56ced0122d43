"""The selective scans on an NVIDIA GPU: the kernels beside PyTorch's own ways, and beside what memory allows.

    python benchmarks/bench_ssm_gpu.py [--report FILE.md] [--tune]

The limit is the time in which the memory, at the speed of a large copy measured here, moves what each pass
cannot avoid: forward reads x, Δ, B, C and writes y; backward reads them and d y and writes their gradients.
All but the blocks is replayed as CUDA graphs, so that launches cost nothing. Tracing the recurrence takes a
compiler minutes at 512 positions, so that it is compiled at 64. What fails says so, and the rest goes on.
With --tune it is the kernels alone, cut in several ways.
"""

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from bench_ret_gpu import median_seconds
from torch import Tensor

from cellular.ssm import MambaBlock, selective_scan, ssd_scan, ssd_scan_ref

STATE, HEAD = 16, 32
Shape = tuple[int, int, int, torch.dtype]  # texts, positions, channels
LATTICE: Shape = (1024, 512, 192, torch.bfloat16)
ISSUE: Shape = (32, 512, 64, torch.float32)
SHORT: Shape = (256, 64, 64, torch.float32)  # which a compiler can unroll
BLOCKS = (256, 1024)
TUNINGS = ((32, 1, 1), (32, 1, 2), (32, 1, 3), (32, 2, 2), (16, 1, 2), (64, 2, 2), (64, 4, 2))

Scan = Callable[..., tuple[Tensor, ...]]


def by_head(shape: Shape) -> list[Tensor]:
    """x, delta, a, b and c with a decay for every head of HEAD channels; x, b and c in one tensor."""
    batch, length, channels, dtype = shape
    heads = channels // HEAD
    mixed = torch.randn(batch, length, channels + 2 * STATE, device="cuda").to(dtype)
    delta_BLH = F.softplus(torch.randn(batch, length, heads, device="cuda") - 3).to(dtype)
    x_BLD, b_BLN, c_BLN = torch.split(mixed, [channels, STATE, STATE], 2)
    a_H = -torch.arange(1, heads + 1.0, device="cuda")
    parts = torch.unflatten(x_BLD, 2, (heads, HEAD)), delta_BLH, a_H, b_BLN, c_BLN
    return [part.detach().requires_grad_() for part in parts]


def by_channel(shape: Shape) -> list[Tensor]:
    """The same with a decay for every channel and state component."""
    x_BLHP, delta_BLH, _, b_BLN, c_BLN = (part.detach() for part in by_head(shape))
    a_DN = -torch.arange(1, STATE + 1.0, device="cuda").repeat(shape[2], 1)
    parts = x_BLHP.flatten(2), delta_BLH.repeat_interleave(HEAD, 2), a_DN, b_BLN, c_BLN
    return [part.requires_grad_() for part in parts]


def forward(scan: Scan, arguments: list[Tensor]) -> None:
    """Without what a gradient needs."""
    with torch.no_grad():
        scan(*arguments)


def both(scan: Scan, arguments: list[Tensor], d_y: Tensor) -> None:
    """Forward, and back to every argument."""
    torch.autograd.grad(scan(*arguments)[0], arguments, d_y)


def replayed(run: Callable[[], object]) -> Callable[[], object]:
    """The work as one launch, after calls that compile."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def copy_speed() -> float:
    """Bytes a second that are read and written."""
    source, target = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * source.numel() / median_seconds(lambda: target.copy_(source), 10)


def least_milliseconds(arguments: list[Tensor], speed: float) -> tuple[float, float]:
    """What memory alone takes, forward and both."""
    read = sum(part.numel() * part.element_size() for part in arguments)
    written = arguments[0].numel() * arguments[0].element_size()
    return 1e3 * (read + written) / speed, 1e3 * (3 * read + 2 * written) / speed


def line(name: str, scan: Scan, arguments: list[Tensor], speed: float) -> str:
    """A row: times, and how many times the limit they are."""
    d_y, least = torch.randn_like(arguments[0]), least_milliseconds(arguments, speed)
    ways: tuple[Callable[[], object], ...] = (
        partial(forward, scan, arguments),
        partial(both, scan, arguments, d_y),
    )
    try:
        one, two = (1e3 * median_seconds(replayed(run), 6) for run in ways)
    except Exception as error:
        return f"| {name} | {type(error).__name__}: {' '.join(str(error).split())[:300]} | | | |"
    return f"| {name} | {one:.3f} | {one / least[0]:.1f} | {two:.3f} | {two / least[1]:.1f} |"


def scans(
    shape: Shape, speed: float, **variants: tuple[Scan, Callable[[Shape], list[Tensor]]]
) -> Iterator[str]:
    """A table of one shape."""
    batch, length, channels, dtype = shape
    name_of = str(dtype).removeprefix("torch.")
    yield f"{batch} × {length} positions, {channels} channels, state {STATE}, {name_of}:\n"
    yield "| | forward, ms | × the limit | forward + backward, ms | × the limit |\n|---|---|---|---|---|"
    for name, (scan, make) in variants.items():
        torch.cuda.empty_cache()
        yield line(name.replace("_", " "), scan, make(shape), speed)
    yield ""


def blocks() -> Iterator[str]:
    """A table of whole `MambaBlock`s, as a lattice's sweep has two."""
    yield "| MambaBlock(96), bf16 | rows × 512 | forward + backward, ms |\n|---|---|---|"
    for rows in BLOCKS:
        x_BLW = torch.randn(rows, 512, 96, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for name in ("eager", "torch.compile"):
            block = MambaBlock(96).cuda().bfloat16()
            if name == "torch.compile":
                block.compile(dynamic=False)
            run: Any = partial(_back, block, x_BLW)
            yield f"| {name} | {rows:,} | {1e3 * median_seconds(run, 6):.2f} |"
    yield ""


def _back(block: MambaBlock, x_BLW: Tensor) -> None:
    y_BLW = block(x_BLW)
    y_BLW.backward(torch.ones_like(y_BLW))


def tables(speed: float) -> Iterator[str]:
    """The kernels first, what takes a compiler long last."""
    products = partial(ssd_scan, compiled=False)
    yield from scans(LATTICE, speed, kernels=(ssd_scan, by_head), products=(products, by_head))
    yield from scans(ISSUE, speed, kernels=(ssd_scan, by_head), products=(products, by_head))
    yield from blocks()
    compiled = torch.compile(products, dynamic=False)
    yield from scans(LATTICE, speed, products_compiled=(compiled, by_head))
    recurrence = torch.compile(ssd_scan_ref, dynamic=False)
    yield from scans(
        SHORT,
        speed,
        kernels=(ssd_scan, by_head),
        selective_scan=(selective_scan, by_channel),
        recurrence=(ssd_scan_ref, by_head),
        recurrence_compiled=(recurrence, by_head),
    )


def tunings(speed: float) -> Iterator[str]:
    """Positions of a chunk, warps, and stages of the loads, forward and backward alike."""
    from cellular.ssm.fused import backward, forward, scan

    yield f"{LATTICE[:3]}, bfloat16:\n"
    yield "| chunk, warps, stages | ms | × | ms, both | × |\n|---|---|---|---|---|"
    for chunk, warps, stages in TUNINGS:
        for module in (forward, backward):
            vars(module).update(_WARPS=warps, _STAGES=stages)
        for module in (forward, scan):
            vars(module).update(CHUNK=chunk)
        yield line(f"{chunk}, {warps}, {stages}", ssd_scan, by_head(LATTICE), speed)


def main(
    report: Annotated[Path | None, typer.Option(help="append the tables there")] = None,
    tune: Annotated[bool, typer.Option(help="only the kernels, cut in several ways")] = False,
) -> None:
    """Print the tables, each line when it is known."""
    torch.set_float32_matmul_precision("high")
    speed = copy_speed()
    heading = (
        f"{date.today()}, {torch.cuda.get_device_name()}, torch {torch.__version__}, medians; "
        f"a copy moves {speed / 1e12:.2f} TB/s.\n"
    )
    lines = []
    for text in chain([heading], tunings(speed) if tune else tables(speed)):
        print(text, flush=True)
        lines.append(text)
    if report is not None:
        with report.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
