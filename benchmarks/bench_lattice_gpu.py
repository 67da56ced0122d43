"""A lattice on an NVIDIA GPU: whole training steps, its cell update beside a 3D convolution, and inference.

    python benchmarks/bench_lattice_gpu.py [--report FILE.md]
    torchrun --nproc-per-node 2 benchmarks/bench_lattice_gpu.py     training on two GPUs

Weights and embeddings are random: the time does not depend on them. Cell updates and convolutions run from
CUDA graphs, as a training runs them: launched one by one the small ones wait for Python. Memory is the most
that PyTorch held at once, the libraries' own not counted. Each line is printed when it is known, those that
matter most first.
"""

import os
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import torch.nn.functional as F
import typer
from bench_lattice import ANCHOR, VARIANTS, both, forward, make
from bench_ret_gpu import median_seconds
from bench_ssm_gpu import replayed
from torch import Tensor, nn

from cellular.config import CorpusConfig
from cellular.embedding_objectives import EmbeddingBatch
from cellular.lattice import Lattice3D, LatticeConfig, count_parameters
from cellular.training.config import TrainingDataConfig
from cellular.training.lattice import make_trainer
from cellular.training.lattice_config import (
    EmbeddingLoopConfig,
    LatticeScheduleConfig,
    PairsConfig,
    TrainLatticeConfig,
)

SHAPES = ((1024, 8, 32), (256, 16, 64))  # batch, cells along an axis, channels
COMPILED = ("Conv3d, bf16, channels last", "nca, bf16", "gated, bf16")
# name -> (compiled, CUDA graphs, embeddings in a step of a GPU)
STEPS = {"torch.compile, CUDA graphs": (True, True, (1024, 256)), "CUDA graphs": (False, True, (1024,))}
LATTICES = {"with Mamba": LatticeConfig(), "without": LatticeConfig(sweeps=())}
INFERENCE = (1, 64, 4096)


def updates(shape: tuple[int, int, int]) -> Iterator[str]:
    """A table: ratios to the anchor, above 1 is faster."""
    batch, side, channels = shape
    yield f"Batch {batch}, {side}³ cells of {channels} channels:\n"
    yield "| | forward, ms | ratio | forward + backward, ms | ratio |\n|---|---|---|---|---|"
    anchor: list[float] = []
    for name in [*VARIANTS, *(f"{name}, compiled" for name in COMPILED)]:
        module, state = make(name.removesuffix(", compiled"), batch, side, channels)
        module, state = module.cuda(), state.cuda()
        if name.endswith("compiled"):
            module.compile(dynamic=False)
        runs = (replayed(partial(run, module, state)) for run in (forward, both))
        times = [1e3 * median_seconds(run, 10) for run in runs]
        anchor = anchor or times
        one, two = (before / time for before, time in zip(anchor, times, strict=True))
        yield f"| {name} | {times[0]:.2f} | {one:.2f} | {times[1]:.2f} | {two:.2f} |"
    yield ""


def config(compiled: bool, graphs: bool) -> TrainLatticeConfig:
    """A training of the default lattice on pairs."""
    return TrainLatticeConfig(
        target=Path("-"),
        data=TrainingDataConfig(corpus=CorpusConfig(inputs=("-",))),
        schedule=LatticeScheduleConfig(seconds=60.0),
        objective="map",
        pairs=PairsConfig(group="-"),
        loop=EmbeddingLoopConfig(compile=compiled, graphs=graphs),
    )


def unit(*shape: int) -> Tensor:
    """Random embeddings."""
    return F.normalize(torch.randn(*shape, device="cuda"), dim=-1)


def random_batch(rows: int, candidates: int) -> EmbeddingBatch:
    """Pairs, and no history."""
    target_BE = unit(rows, 384)
    return EmbeddingBatch(
        source_BE=unit(rows, 384),
        target_BE=target_BE,
        near_BE=target_BE,
        candidates_ME=unit(candidates, 384),
        negative_BM=torch.ones(rows, candidates, dtype=torch.bool, device="cuda"),
        earlier_BNE=torch.zeros(rows, 0, 384, device="cuda"),
        present_BN=torch.zeros(rows, 0, dtype=torch.bool, device="cuda"),
        pieces_BL=torch.zeros(rows, 0, dtype=torch.long, device="cuda"),
        mask_BL=torch.zeros(rows, 0, device="cuda"),
    )


def peak_gigabytes(run: Callable[[], object]) -> float:
    """The most memory that PyTorch held while something ran."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def training() -> Iterator[str]:
    """A table of whole optimiser steps, of this process alone or of all that torchrun started."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    yield f"Training the default lattice, {count_parameters(Lattice3D())['all']:,} parameters, {world} GPU:\n"
    yield "| | | embeddings a step, GPU | ms | embeddings/s | peak, GB a GPU |\n|---|---|---|---|---|---|"
    for way, (compiled, graphs, batches) in STEPS.items():
        for name, shape in LATTICES.items():
            for rows in batches:
                trainer = make_trainer(config(compiled, graphs), Lattice3D(shape).cuda())
                step = partial(trainer.step, [random_batch(rows, world * rows + 4096)], 0.5)
                step()  # compiles
                peak = peak_gigabytes(step)
                seconds = median_seconds(step, 10)
                speed = f"{1e3 * seconds:.1f} | {world * rows / seconds:,.0f} | {peak:.2f}"
                yield f"| {name} | {way} | {rows:,} | {speed} |"
                del trainer, step
    yield ""


def inference() -> Iterator[str]:
    """A table of the lattice as it is served."""
    lattice: nn.Module = Lattice3D().cuda().eval().bfloat16()
    yield "Inference in bf16, eager:\n"
    yield "| embeddings | ms | embeddings/s | peak, GB |\n|---|---|---|---|"
    for rows in INFERENCE:
        run = partial(torch.inference_mode()(lattice), unit(rows, 384))
        peak = peak_gigabytes(run)
        seconds = median_seconds(run, 10)
        yield f"| {rows:,} | {1e3 * seconds:.2f} | {rows / seconds:,.0f} | {peak:.2f} |"
    yield ""


def alone() -> Iterator[str]:
    """All tables."""
    yield from training()
    yield f"Peer of the cell update: {ANCHOR}, TF32 as PyTorch has it.\n"
    yield from chain.from_iterable(map(updates, SHAPES))
    yield from inference()


def main(report: Annotated[Path | None, typer.Option(help="append the tables there")] = None) -> None:
    """Print the tables; under torchrun the training's alone."""
    rank, distributed = int(os.environ.get("LOCAL_RANK", 0)), "LOCAL_RANK" in os.environ
    torch.cuda.set_device(rank)
    if distributed:
        dist.init_process_group("nccl")
    lines = [f"{date.today()}, {torch.cuda.get_device_name()}, torch {torch.__version__}, medians.\n"]
    for line in chain(lines[:], training() if distributed else alone()):
        if not rank:
            print(line, flush=True)
        lines.append(line)
    if distributed:
        dist.destroy_process_group()
    if report is not None and not rank:
        with report.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines[1:]) + "\n")


if __name__ == "__main__":
    typer.run(main)
