"""RET on an NVIDIA GPU: whole training steps by three ways to run the layer, and decoding.

    python benchmarks/bench_ret_gpu.py [--tokens 131072] [--report FILE.md]
    torchrun --nproc-per-node 2 benchmarks/bench_ret_gpu.py     training on two GPUs, so many tokens on each

Weights and texts are random: the time does not depend on them. No text ends early, so decoding takes longest.
MFU counts forward and backward once: the products with weights and attention's (`flops_per_text`); bf16
without sparsity has 990 TFLOP/s.
"""

import os
import statistics
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import torch.nn.functional as F
import typer

from cellular.config import CorpusConfig
from cellular.decoders.ret.cuda import greedy_pieces, sample_pieces
from cellular.decoders.ret.generation import TorchEngine
from cellular.decoders.ret.model import RET
from cellular.objectives import Batch
from cellular.training.config import RETLoopConfig, ScheduleConfig, TrainingDataConfig, TrainRETConfig
from cellular.training.ret import flops_per_text, make_trainer, runs_fused

PEAK = 990e12
# name → compile, fused layer, CUDA graphs; the first is the anchor.
STEPS = {
    "eager": (False, False, False),
    "torch.compile": (True, False, False),
    "torch.compile, CUDA graphs": (True, False, True),
    "our kernels, CUDA graphs": (True, True, True),
}
DECODES = ((1, 64), (64, 64), (1000, 64), (1024, 33), (8192, 33))  # texts, pieces


def main(
    tokens: Annotated[int, typer.Option(min=1024, help="positions of a step")] = 131072,
    widths: Annotated[list[int] | None, typer.Option(help="pieces of a text")] = None,
    report: Annotated[Path | None, typer.Option(help="write the tables there as well")] = None,
) -> None:
    """Print tokens a second, MFU and times side by side."""
    rank, distributed = int(os.environ.get("LOCAL_RANK", 0)), "LOCAL_RANK" in os.environ
    torch.cuda.set_device(rank)
    if distributed:
        dist.init_process_group("nccl")
    gpus = dist.get_world_size() if distributed else 1
    lines = [
        f"{date.today()}, {gpus} {torch.cuda.get_device_name()}, torch {torch.__version__}, medians:\n",
        "| a step of training | pieces a text | ms | M tokens/s | MFU | ratio |",
        "|---|---|---|---|---|---|",
        *(line for width in widths or [31, 15, 63] for line in training(tokens, width, gpus)),
    ]
    if distributed:
        dist.destroy_process_group()
        if not rank:
            print("\n".join(lines))
        return
    lines += [
        "",
        "| decoding | texts | pieces | ms | texts/s | tokens/s |",
        "|---|---|---|---|---|---|",
        *decoding(),
    ]
    print("\n".join(lines))
    if report is not None:
        text = "\n".join(lines)
        report.write_text(f"# RET on a GPU\n\n`python {__file__}`, {text}\n", encoding="utf-8")


def training(tokens: int, width: int, gpus: int) -> list[str]:
    """Rows of the first table: tokens of all GPUs, MFU of each."""
    lines, anchor = [], 0.0
    for name, (compiled, fused, graphs) in STEPS.items():
        if fused and not runs_fused(True):
            continue
        loop = RETLoopConfig(compile=compiled, fused=fused, graphs=graphs)
        model = RET().cuda()
        trainer = make_trainer(_config(loop), model)
        batch = random_batch(tokens // width, width)
        seconds = median_seconds(lambda trainer=trainer, batch=batch: trainer.step([batch], 0.5), 20)
        speed = gpus * batch.targets_BL.numel() / seconds
        anchor = anchor or speed
        mfu = speed / width * flops_per_text(model, width) / (gpus * PEAK)
        lines.append(
            f"| {name} | {width} | {1e3 * seconds:.2f} | {speed / 1e6:.2f} | {mfu:.1%} "
            f"| {speed / anchor:.1f} |"
        )
    return lines


def _config(loop: RETLoopConfig) -> TrainRETConfig:
    data = TrainingDataConfig(corpus=CorpusConfig(inputs=("-",)))
    return TrainRETConfig(target=Path("-"), data=data, schedule=ScheduleConfig(seconds=60.0), loop=loop)


def random_batch(texts: int, width: int) -> Batch:
    """Texts of full length."""
    pieces_BL = torch.randint(2, 256, (texts, width), device="cuda")
    return Batch(
        embeddings_BE=F.normalize(torch.randn(texts, 384, device="cuda"), dim=1),
        inputs_BL=pieces_BL[:, :-1],
        targets_BL=pieces_BL,
        mask_BL=torch.ones_like(pieces_BL, dtype=torch.float32),
    )


def decoding() -> list[str]:
    """Rows of the second table."""
    model = RET().cuda().bfloat16()
    model.output_bias.data[0] = -100.0  # no END
    generator, engine = torch.Generator(), TorchEngine(model, "bf16", "cuda")
    lines = []
    for texts, pieces in DECODES:
        embeddings = F.normalize(torch.randn(texts, 384, device="cuda"), dim=1)
        rows = embeddings.cpu().numpy()
        ways: dict[str, Callable[[], object]] = {
            "eager, greedy": lambda rows=rows, pieces=pieces: engine.greedy(rows, pieces),  # type: ignore[misc]
            "kernel, greedy": lambda e=embeddings, pieces=pieces: greedy_pieces(model, e, pieces),  # type: ignore[misc]
            "kernel, sampled": lambda e=embeddings, pieces=pieces: sample_pieces(  # type: ignore[misc]
                model, e, pieces, 1.0, generator
            ),
        }
        for name, run in ways.items():
            seconds = median_seconds(run, 3)
            lines.append(
                f"| {name} | {texts:,} | {pieces} | {1e3 * seconds:.1f} | {texts / seconds:,.0f} "
                f"| {texts * pieces / seconds:,.0f} |"
            )
    return lines


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    """Of calls that are waited for, after some that compile and capture."""
    for _ in range(5 if rounds > 5 else 1):
        run()
    milliseconds = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        milliseconds.append(start.elapsed_time(end))
    return statistics.median(milliseconds) / 1e3


if __name__ == "__main__":
    typer.run(main)
