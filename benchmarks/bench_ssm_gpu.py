"""The selective scans on an NVIDIA GPU: beside the compiled recurrence, and beside what memory allows.

    python benchmarks/bench_ssm_gpu.py [--report FILE.md]

The limit is the time in which the memory, at the speed of a large copy measured here, moves what each pass
cannot avoid: forward reads x, Δ, B, C and writes y; backward reads them and d y and writes their gradients.
Tracing the recurrence takes a compiler minutes at 512 positions, so that it is compiled at 64.
"""

from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from bench_ret_gpu import median_seconds
from torch import Tensor

from cellular.ssm import MambaBlock, selective_scan, selective_scan_ref, ssd_scan, ssd_scan_ref

CHANNELS, STATE, HEAD = 64, 16, 32
SHAPES = ((256, 64), (32, 512), (1024, 512))  # texts, positions: a compiled loop, the issue's, a lattice's
COMPILED_LENGTH = 64

Scan = Callable[..., tuple[Tensor, ...]]


def by_channel(batch: int, length: int) -> list[Tensor]:
    """x, delta, a, b and c with a decay for every channel and state component."""
    x_BLD, delta_BLD = (torch.randn(batch, length, CHANNELS, device="cuda") for _ in range(2))
    b_BLN, c_BLN = (torch.randn(batch, length, STATE, device="cuda") for _ in range(2))
    a_DN = -torch.arange(1, STATE + 1.0, device="cuda").repeat(CHANNELS, 1)
    return [part.requires_grad_() for part in (x_BLD, F.softplus(delta_BLD - 3), a_DN, b_BLN, c_BLN)]


def by_head(batch: int, length: int) -> list[Tensor]:
    """The same with a decay for every head."""
    x_BLD, delta_BLD, a_DN, b_BLN, c_BLN = (part.detach() for part in by_channel(batch, length))
    heads = CHANNELS // HEAD
    parts = x_BLD.unflatten(2, (heads, HEAD)), delta_BLD[..., :heads].contiguous(), a_DN[0, :heads].clone()
    return [part.requires_grad_() for part in (*parts, b_BLN, c_BLN)]


def forward(scan: Scan, arguments: list[Tensor]) -> None:
    """Without what a gradient needs."""
    with torch.no_grad():
        scan(*arguments)


def both(scan: Scan, arguments: list[Tensor], d_y: Tensor) -> None:
    """Forward, and back to every argument."""
    torch.autograd.grad(scan(*arguments)[0], arguments, d_y)


def copy_speed() -> float:
    """Bytes a second that are read and written."""
    source, target = (torch.empty(1 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * source.numel() / median_seconds(lambda: target.copy_(source), 10)


def least_milliseconds(arguments: list[Tensor], speed: float) -> tuple[float, float]:
    """What memory alone takes, forward and both."""
    read = sum(part.numel() * part.element_size() for part in arguments)
    written = arguments[0].numel() * arguments[0].element_size()
    return 1e3 * (read + written) / speed, 1e3 * (3 * read + 2 * written) / speed


def variants(length: int) -> dict[str, tuple[Scan, Callable[[int, int], list[Tensor]]]]:
    """The recurrences first; what they are compared with has the same decays."""
    found: dict[str, tuple[Scan, Callable[[int, int], list[Tensor]]]] = {
        "`ssd_scan_ref`": (ssd_scan_ref, by_head),
        "`ssd_scan`, chunk 32": (ssd_scan, by_head),
        "`ssd_scan`, chunk 64": (partial(ssd_scan, chunk=64), by_head),
        "`ssd_scan`, chunk 128": (partial(ssd_scan, chunk=128), by_head),
        "`selective_scan_ref`": (selective_scan_ref, by_channel),
        "`selective_scan`": (selective_scan, by_channel),
    }
    if length <= COMPILED_LENGTH:
        found["`ssd_scan_ref`, torch.compile"] = (torch.compile(ssd_scan_ref, dynamic=False), by_head)
    return found


def scans(batch: int, length: int, speed: float) -> list[str]:
    """A table of one shape."""
    lines = [
        f"{batch} texts of {length} positions, {CHANNELS} channels, state {STATE}, float32:\n",
        "| | forward, ms | × the limit | forward + backward, ms | × the limit |\n|---|---|---|---|---|",
    ]
    for name, (scan, make) in variants(length).items():
        arguments = make(batch, length)
        d_y = torch.randn_like(arguments[0])
        one = 1e3 * median_seconds(partial(forward, scan, arguments), 6)
        two = 1e3 * median_seconds(partial(both, scan, arguments, d_y), 6)
        least = least_milliseconds(arguments, speed)
        lines.append(f"| {name} | {one:.2f} | {one / least[0]:.1f} | {two:.2f} | {two / least[1]:.1f} |")
    return [*lines, ""]


def blocks() -> list[str]:
    """A table of whole `MambaBlock`s, as a lattice's sweep has two."""
    x_BLW = torch.randn(1024, 512, 96, device="cuda")
    lines = ["| MambaBlock(96), 1,024 × 512 | forward + backward, ms |\n|---|---|"]
    for name, compiled in {"eager": False, "torch.compile": True}.items():
        block = MambaBlock(96).cuda()
        if compiled:
            block.compile(dynamic=False)
        with torch.autocast("cuda", torch.bfloat16):
            seconds = median_seconds(lambda block=block: block(x_BLW).sum().backward(), 6)  # type: ignore[misc]
        lines.append(f"| {name}, bf16 | {1e3 * seconds:.1f} |")
    return [*lines, ""]


def main(report: Annotated[Path | None, typer.Option(help="append the tables there")] = None) -> None:
    """Print the tables."""
    torch.set_float32_matmul_precision("high")
    speed = copy_speed()
    lines = [
        f"{date.today()}, {torch.cuda.get_device_name()}, torch {torch.__version__}, medians; "
        f"a copy moves {speed / 1e12:.2f} TB/s.\n"
    ]
    for batch, length in SHAPES:
        lines += scans(batch, length, speed)
        print("\n".join(lines), flush=True)
    lines += blocks()
    print("\n".join(lines))
    if report is not None:
        with report.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
