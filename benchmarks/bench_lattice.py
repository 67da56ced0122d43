"""A lattice's cell update beside a 3D convolution of the same shape, and the default lattice as a whole.

    python -m benchmarks.bench_lattice [--rounds 15] [--report FILE.md]

Anchor: Conv3d of 3 x 3 x 3 -> GELU -> Conv3d of 1, from C channels to 2 C and back, channels first, fp32:
what one writes first. Beside it the same in bf16, and channels last. Times are of the working thread on the
processor; the variants take turns, so that noise meets all of them. Memory is the most that a process of its
own held, less what it held before.
"""

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.memory import peak_mib
from cellular.lattice import Lattice3D, LatticeConfig

SHAPES = ((16, 8, 32), (16, 16, 64))  # batch, cells along an axis, channels
WHOLE = ((1, False), (64, False), (64, True))  # embeddings at once, whether with gradients


def convolution(side: int, channels: int) -> nn.Module:
    """The anchor."""
    del side
    inner = 2 * channels
    return nn.Sequential(nn.Conv3d(channels, inner, 3, padding=1), nn.GELU(), nn.Conv3d(inner, channels, 1))


class Update(nn.Module):
    """A rule alone, as the anchor is; or a whole step of a lattice, with norm and gains."""

    def __init__(self, side: int, channels: int, *, whole: bool = False, **settings: Any) -> None:
        super().__init__()
        config = LatticeConfig(
            embedding_dimension=8,
            face_channels=1,
            size=(side, side, side),
            channels=channels,
            sweeps=(),
            update_probability=1.0,
            **settings,
        )
        self.lattice, self.whole = Lattice3D(config), whole

    def forward(self, state_BXYZC: Tensor) -> Tensor:
        """The next states."""
        if self.whole:
            return self.lattice.step(state_BXYZC)
        after: Tensor = self.lattice.rule(state_BXYZC, state_BXYZC)  # type: ignore[misc]
        return after


# name -> (module, channels first in memory, dtype); the first is the anchor
VARIANTS: dict[str, tuple[Callable[[int, int], nn.Module], bool, torch.dtype]] = {
    "Conv3d, fp32": (convolution, True, torch.float32),
    "Conv3d, bf16": (convolution, True, torch.bfloat16),
    "Conv3d, bf16, channels last": (convolution, False, torch.bfloat16),
    "nca, fp32": (Update, True, torch.float32),
    "nca, bf16": (Update, True, torch.bfloat16),
    "nca with norm and gains, bf16": (lambda s, c: Update(s, c, whole=True), True, torch.bfloat16),
    "gated, bf16": (lambda s, c: Update(s, c, rule="gated"), True, torch.bfloat16),
    "nca of 26 neighbours, bf16": (lambda s, c: Update(s, c, neighbours=26), True, torch.bfloat16),
}
ANCHOR = next(iter(VARIANTS))


def make(name: str, batch: int, side: int, channels: int) -> tuple[nn.Module, Tensor]:
    """A variant and its states."""
    factory, contiguous, dtype = VARIANTS[name]
    module = factory(side, channels).to(dtype)
    if isinstance(module, Update):
        return module, torch.randn(batch, side, side, side, channels).to(dtype)
    state_BCXYZ = torch.randn(batch, channels, side, side, side).to(dtype)
    if contiguous:
        return module, state_BCXYZ
    layout = torch.channels_last_3d
    return module.to(memory_format=layout), state_BCXYZ.to(memory_format=layout)  # type: ignore[call-overload]


def forward(module: nn.Module, state: Tensor) -> None:
    """Inference."""
    with torch.inference_mode():
        module(state)


def both(module: nn.Module, state: Tensor) -> None:
    """Forward and backward, by the states and the weights."""
    module.zero_grad()
    result = module(state.detach().requires_grad_())
    result.backward(torch.ones_like(result))


def measure(batch: int, side: int, channels: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds, forward and both, of every variant."""
    made = {name: make(name, batch, side, channels) for name in VARIANTS}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in VARIANTS}
    for _ in tqdm(range(rounds + 1), desc=f"{batch} x {side}^3 x {channels}", leave=False):
        for name, (module, state) in made.items():
            for run, found in zip((forward, both), times[name], strict=True):
                began = time.thread_time()
                run(module, state)
                found.append((time.thread_time() - began) * 1000)
    return {  # the first round warms up
        name: (statistics.median(one[1:]), statistics.median(two[1:])) for name, (one, two) in times.items()
    }


def table(shape: tuple[int, int, int], rounds: int) -> list[str]:
    """Rows of Markdown; ratios to the anchor, above 1 is faster."""
    batch, side, channels = shape
    found = measure(*shape, rounds)
    lines = [
        f"Batch {batch}, {side}³ cells of {channels} channels:\n",
        "| | forward, ms | ratio | forward + backward, ms | ratio |\n|---|---|---|---|---|",
    ]
    for name, (one, two) in found.items():
        faster, faster_both = found[ANCHOR][0] / one, found[ANCHOR][1] / two
        lines.append(f"| {name} | {one:.2f} | {faster:.2f} | {two:.2f} | {faster_both:.2f} |")
    return [*lines, ""]


def measure_whole(batch: int, training: bool, rounds: int) -> tuple[float, float]:
    """Median milliseconds of the default lattice in bf16, and the megabytes that it took."""
    torch.set_num_threads(1)
    lattice = Lattice3D().bfloat16().train(training)
    embeddings_BE = torch.nn.functional.normalize(torch.randn(batch, 384))
    before, times = peak_mib(), []
    for _ in range(rounds + 1):
        began = time.thread_time()
        if training:
            lattice(embeddings_BE)[:, 0].sum().backward()
        else:
            forward(lattice, embeddings_BE)
        times.append((time.thread_time() - began) * 1000)
    return statistics.median(times[1:]), peak_mib() - before  # the first round warms up


def whole(rounds: int) -> list[str]:
    """Rows of Markdown: the default lattice with its sweeps."""
    lines = [
        "The default lattice in bf16, sweeps included:\n",
        "| | embeddings at once | ms | ms an embedding | memory, MB |\n|---|---|---|---|---|",
    ]
    for batch, training in WHOLE:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            milliseconds, megabytes = pool.submit(measure_whole, batch, training, rounds).result()
        name = "forward + backward" if training else "inference"
        each = milliseconds / batch
        lines.append(f"| {name} | {batch} | {milliseconds:.1f} | {each:.2f} | {megabytes:.0f} |")
    return [*lines, ""]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="times that each variant is measured")] = 15,
    report: Annotated[Path | None, typer.Option(help="write the tables there as well")] = None,
) -> None:
    """Print a table a shape."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, one thread, torch {torch.__version__}"
    lines = [f"{date.today()}, {machine}, medians of {rounds} rounds.\n"]
    for shape in SHAPES:
        lines += table(shape, rounds)
    lines += whole(min(rounds, 5))
    print("\n".join(lines))
    if report is not None:
        heading = "# A lattice's cell update\n\n`python -m benchmarks.bench_lattice`, "
        report.write_text(heading + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
