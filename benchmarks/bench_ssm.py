"""The selective scans beside mamba.py's parallel scan and a plain loop: forward and backward, on one core.

    pip install --no-deps mambapy==1.2.0
    python benchmarks/bench_ssm.py [--rounds 9]

Every variant maps the same x, Δ, A, B and C to y, and takes y's gradient back to all of them. Those with a
decay a channel get mambapy's own shapes; `ssd_scan` has one a head of 32 channels, which is what Mamba-2 gave
up for speed. Times are the working thread's on the processor, which on a quiet machine is the time that
passes; the variants take turns, so that noise meets all of them.
"""

import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from mambapy.pscan import pscan
from torch import Tensor
from tqdm import tqdm

from cellular.ssm import MambaBlock, selective_scan, selective_scan_ref, ssd_scan

BATCH, LENGTH, CHANNELS, STATE, HEAD = 32, 512, 64, 16, 32
PSCAN, LOOP = "mamba.py pscan", "loop over .unbind(1)"

Step = Callable[[], object]


def by_channel(draw: torch.Generator) -> list[Tensor]:
    """x, delta, a, b and c with a decay for every channel and state component."""
    sequence = BATCH, LENGTH
    x_BLD, delta_BLD = (torch.randn(*sequence, CHANNELS, generator=draw) for _ in range(2))
    b_BLN, c_BLN = (torch.randn(*sequence, STATE, generator=draw) for _ in range(2))
    a_DN = -torch.arange(1, STATE + 1.0).repeat(CHANNELS, 1)
    return [part.requires_grad_() for part in (x_BLD, F.softplus(delta_BLD - 3), a_DN, b_BLN, c_BLN)]


def by_head(draw: torch.Generator) -> list[Tensor]:
    """The same with a decay for every head."""
    x_BLD, delta_BLD, _, b_BLN, c_BLN = (part.detach() for part in by_channel(draw))
    heads = CHANNELS // HEAD
    parts = x_BLD.unflatten(2, (heads, HEAD)), delta_BLD[..., :heads].clone(), -torch.arange(1, heads + 1.0)
    return [part.requires_grad_() for part in (*parts, b_BLN, c_BLN)]


def parallel_scan(
    x_BLD: Tensor, delta_BLD: Tensor, a_DN: Tensor, b_BLN: Tensor, c_BLN: Tensor
) -> tuple[Tensor]:
    """As mambapy's MambaBlock calls its Blelloch scan."""
    decay_BLDN = (delta_BLD[..., None] * a_DN).exp()
    added_BLDN = (delta_BLD * x_BLD)[..., None] * b_BLN[:, :, None]
    return ((pscan(decay_BLDN, added_BLDN) @ c_BLN[..., None]).squeeze(3),)


def both_ways(scan: Callable[..., tuple[Tensor, ...]], arguments: list[Tensor]) -> Step:
    """Forward, and back to every argument."""
    d_y = torch.randn(arguments[0].shape, generator=torch.Generator().manual_seed(1))
    return lambda: torch.autograd.grad(scan(*arguments)[0], arguments, d_y)


def forward(scan: Callable[..., tuple[Tensor, ...]], arguments: list[Tensor]) -> Step:
    """Without what a gradient needs."""
    return torch.no_grad()(lambda: scan(*arguments))


def variants(pass_over: Callable[[Callable[..., tuple[Tensor, ...]], list[Tensor]], Step]) -> dict[str, Step]:
    """The peers first."""
    channel, head = (make(torch.Generator().manual_seed(0)) for make in (by_channel, by_head))
    return {
        PSCAN: pass_over(parallel_scan, channel),
        LOOP: pass_over(selective_scan_ref, channel),
        "`selective_scan`, operations": pass_over(partial(selective_scan, compiled=False), channel),
        "`selective_scan`, in C": pass_over(partial(selective_scan, compiled=True), channel),
        "`ssd_scan`, operations, chunk 16": pass_over(partial(ssd_scan, chunk=16, compiled=False), head),
        "`ssd_scan`, operations, chunk 32": pass_over(partial(ssd_scan, compiled=False), head),
        "`ssd_scan`, operations, chunk 64": pass_over(partial(ssd_scan, chunk=64, compiled=False), head),
        "`ssd_scan`, in C": pass_over(partial(ssd_scan, compiled=True), head),
    }


def measure(steps: dict[str, Step], rounds: int) -> dict[str, Tensor]:
    """Milliseconds in each round; the steps take turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in tqdm(range(rounds + 1), leave=False):
        for name, step in steps.items():
            began = time.thread_time()
            step()
            if number:  # the first round compiles
                times[name].append((time.thread_time() - began) * 1000)
    return {name: torch.tensor(values) for name, values in times.items()}


def print_times(times: dict[str, Tensor]) -> None:
    """A Markdown table; ratios of medians, above 1 is faster than the peer."""
    print(f"| | ms, p50 (best) | × {PSCAN} | × {LOOP} |\n|---|---|---|---|")
    for name, values in times.items():
        faster = (f"{times[peer].median() / values.median():.1f}" for peer in (PSCAN, LOOP))
        print(f"| {name} | {values.median():.1f} ({values.min():.1f}) | {' | '.join(faster)} |")


def block_steps() -> dict[str, Step]:
    """A whole `MambaBlock` of width 64, and one step of it for one text."""
    block = MambaBlock(CHANNELS, STATE)
    x_BLW = torch.randn(BATCH, LENGTH, CHANNELS)
    state = block.start(1)
    return {
        f"MambaBlock({CHANNELS}), forward and backward": lambda: block(x_BLW).sum().backward(),
        f"MambaBlock({CHANNELS}), forward": torch.no_grad()(lambda: block(x_BLW)),
        "one step of one text": torch.no_grad()(lambda: block.step(x_BLW[:1, 0], state)),
    }


def main(rounds: Annotated[int, typer.Option(help="times that each variant is measured")] = 9) -> None:
    """Check that the variants agree, time them, and print the tables."""
    torch.set_num_threads(1)
    channel = by_channel(torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        parallel_scan(*channel)[0], selective_scan_ref(*channel)[0], rtol=1e-3, atol=1e-4
    )
    machine = platform.processor() or platform.machine()
    print(f"\n{BATCH} × {LENGTH}, {CHANNELS} channels, state {STATE}, {machine}, one core, float32.")
    for title, pass_over in {"Forward and backward": both_ways, "Forward": forward}.items():
        print(f"\n{title}:\n")
        print_times(measure(variants(pass_over), rounds))
    print("\n| | ms, p50 (best) |\n|---|---|")
    for name, values in measure(block_steps(), rounds).items():
        print(f"| {name} | {values.median():.2f} ({values.min():.2f}) |")


if __name__ == "__main__":
    typer.run(main)
