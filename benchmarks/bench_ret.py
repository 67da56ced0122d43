"""RET's engines on one core beside eager PyTorch with a key/value cache, and what the processor allows.

    python benchmarks/bench_ret.py [--checkpoint NAME_OR_FOLDER] [--texts 500] [--rounds 20]

Times are of greedy texts of exactly 64 pieces: the end is no option. They are the working thread's time on
the processor, which on a quiet machine is the time that passes. The engines take turns, so that noise meets
all of them. Agreement is of real texts, which may end, with those of PyTorch in fp32: sentences that training
did not see, of $CELLULAR_DATA, or of ../shared/data beside the repository.
"""

import copy
import ctypes
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from cellular.decoders.ret import DEFAULT_CHECKPOINT, RET, Checkpoint, TorchEngine, engines, load_checkpoint
from cellular.decoders.ret.engines.build import TARGETS
from cellular.decoders.ret.engines.native import NativeEngine
from cellular.decoders.ret.engines.numba import NumbaEngine
from cellular.decoders.ret.generation import Engine
from cellular.decoders.ret.vocabulary import END
from cellular.embeddings import EmbeddingLoader
from cellular.large_pages import LargePages
from cellular.metrics import corpus_scores
from cellular.types import FloatArray
from pipelines.evaluation_data import held_out_texts, training_counts

DATA = Path(os.environ.get("CELLULAR_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETS = ("captions", "dialogue", "tatoeba", "open")
PIECES, LONGEST = 64, 128
BATCH = 32
KERNEL = Path(engines.__file__).parent / "kernel"
LIMITS = Path(__file__).with_name("limits.c")
VARIANTS: dict[str, Callable[[RET], Engine[Any]]] = {
    "eager PyTorch, fp32": TorchEngine,
    "numba, fp32": lambda model: NumbaEngine(model, "fp32"),
    "numba, int8": lambda model: NumbaEngine(model, "int8"),
    "C, fp32": lambda model: NativeEngine(model, "fp32"),
    "C, int8": lambda model: NativeEngine(model, "int8"),
    "C, int4": lambda model: NativeEngine(model, "int4"),
    "C for AVX2, int8": lambda model: NativeEngine(model, "int8", target="avx2"),
    "C without intrinsics, int8": lambda model: NativeEngine(model, "int8", target="plain"),
}
ANCHOR = next(iter(VARIANTS))


@dataclass(frozen=True)
class Agreement:
    """Texts of an engine beside those of PyTorch in fp32."""

    same: float
    bleu: float
    bleu_to_truth: float


def endless(model: RET) -> RET:
    """A copy that never ends a text."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.output_bias[END] = -1e9
    return copied


def measure(made: dict[str, Engine[Any]], embeddings: FloatArray, rounds: int) -> dict[str, FloatArray]:
    """Milliseconds a text in each round; the engines take turns."""
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in tqdm(range(rounds), desc=f"batch {len(embeddings)}", leave=False):
        names = list(made)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            made[name].greedy(embeddings[:1], 4)  # the engine before has emptied the caches
            began = time.thread_time()
            made[name].greedy(embeddings, PIECES)
            times[name].append((time.thread_time() - began) * 1000 / len(embeddings))
    return {name: np.array(values, np.float32) for name, values in times.items()}


def agreements(checkpoint: Checkpoint, texts: list[str], embeddings: FloatArray) -> dict[str, Agreement]:
    """How far each engine's texts are from the anchor's."""
    written = {}
    for name, make in tqdm(VARIANTS.items(), desc="agreement", leave=False):
        pieces = make(checkpoint.model).greedy(embeddings, LONGEST)
        written[name] = [checkpoint.vocabulary.decode(ids) for ids in pieces]
    return {name: agreement(outputs, written[ANCHOR], texts) for name, outputs in written.items()}


def agreement(outputs: list[str], reference: list[str], texts: list[str]) -> Agreement:
    """Share of identical texts; BLEU to the reference's, and to what was embedded."""
    same = sum(map(str.__eq__, outputs, reference)) / len(texts)
    bleu, to_truth = (corpus_scores(outputs, other)["bleu"].mean for other in (reference, texts))
    return Agreement(same, bleu, to_truth)


def held_out(count: int) -> tuple[list[str], FloatArray]:
    """Texts that training did not see, the same number of each kind, and their embeddings."""
    training = training_counts(DATA)
    files = [DATA / f"{name}_test.parquet" for name in SETS]
    texts = [text for file in files for text in held_out_texts(file, training, limit=count // len(SETS))]
    return texts, EmbeddingLoader().encode(texts)


def print_engines(
    single: dict[str, FloatArray], batch: dict[str, FloatArray], agree: dict[str, Agreement]
) -> None:
    """A Markdown table; ratios of medians to the anchor's, above 1 is faster."""
    print(
        f"| | ms a text, p50 (best) | ratio | ms a text in batches of {BATCH}, p50 (best) | ratio "
        "| same text as fp32 | BLEU to fp32 | BLEU to truth |\n|---|---|---|---|---|---|---|---|"
    )
    for name in VARIANTS:
        one, many = float(np.median(single[name])), float(np.median(batch[name]))
        faster, faster_batch = np.median(single[ANCHOR]) / one, np.median(batch[ANCHOR]) / many
        found = agree[name]
        print(
            f"| {name} | {one:.2f} ({single[name].min():.2f}) | {faster:.1f} | {many:.2f} "
            f"({batch[name].min():.2f}) | {faster_batch:.1f} | {found.same:.1%} | {found.bleu:.1f} "
            f"| {found.bleu_to_truth:.1f} |"
        )


class Limits:
    """What one core reaches in loops that do nothing else."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "limits.so"
            flags = ["-O3", "-std=gnu11", *TARGETS["native"], "-shared", "-fPIC", f"-I{KERNEL}"]
            subprocess.run(["cc", *flags, str(LIMITS), "-o", str(library), "-lm"], check=True)
            self._library = ctypes.CDLL(str(library))

    def products(self, kind: Literal["int8", "fp32"]) -> float:
        """Billions of multiplications and additions a second."""
        rounds, chains = 100_000, 12
        lanes = self._library.lanes() * (4 if kind == "int8" else 1)
        run = self._library[f"limit_{kind}"]
        return float(rounds * chains * lanes / best_time(lambda: run(ctypes.c_long(rounds))) / 1e9)

    def bandwidth(self, size: int) -> float:
        """Gigabytes a second, of reading so many bytes again and again, where the weights would stand."""
        array = LargePages(size).keep(np.ones(size // 4 // 128 * 128, np.float32))
        rounds = max(1, 100_000_000 // array.nbytes)
        arguments = ctypes.c_void_p(array.ctypes.data), ctypes.c_long(array.size), ctypes.c_long(rounds)
        return array.nbytes * rounds / best_time(lambda: self._library.limit_read(*arguments)) / 1e9


def best_time(run: Callable[[], object], repeats: int = 20) -> float:
    """Seconds."""
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        run()
        times.append(time.thread_time() - began)
    return min(times)


def print_limits(model: RET, single: dict[str, FloatArray], batch: dict[str, FloatArray]) -> None:
    """How far each precision of the C kernel is from what arithmetic and memory allow, at batch 1."""
    limits = Limits()
    layer = (model.query_key_value, model.attention_out, model.mlp_in, model.mlp_out)
    weights = sum(matrix.numel() for matrix in layer)
    positions = model.config.prefix_states + PIECES - 1
    products = positions * (model.config.applications * weights + model.pieces.numel()) / 1e9
    print(f"\n{weights:,} weights a layer, {products * 1000:.0f} M products a text of {PIECES} pieces.\n")
    print(
        "| | peak, G products/s | least ms by arithmetic | weights, kB | read at, GB/s | least ms by reading "
        f"| measured, best, times the larger | in batches of {BATCH}, times arithmetic's |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for precision, bits in (("fp32", 32.0), ("int8", 8.0), ("int4", 5.0)):  # int4: a float32 scale for 32
        peak = limits.products("fp32" if precision == "fp32" else "int8")
        size = int(weights * bits / 8)
        bandwidth = limits.bandwidth(size)
        arithmetic = products / peak * 1000
        reading = positions * model.config.applications * size / bandwidth / 1e6
        one, many = (float(times[f"C, {precision}"].min()) for times in (single, batch))
        print(
            f"| {precision} | {peak:.0f} | {arithmetic:.2f} | {size / 1000:.0f} | {bandwidth:.0f} "
            f"| {reading:.2f} | {one / max(arithmetic, reading):.2f} | {many / arithmetic:.2f} |"
        )


def main(
    checkpoint: Annotated[str, typer.Option(help="a packaged one's name, or a folder")] = DEFAULT_CHECKPOINT,
    texts: Annotated[int, typer.Option(help="whose agreement is counted")] = 500,
    rounds: Annotated[int, typer.Option(help="times that each engine is measured")] = 20,
) -> None:
    """Time every engine, count how its texts agree, and print the distance to the limits."""
    torch.set_num_threads(1)
    loaded = load_checkpoint(checkpoint)
    sentences, embeddings = held_out(texts)
    with threadpool_limits(1):
        agree = agreements(loaded, sentences, embeddings)
        made = {name: make(endless(loaded.model)) for name, make in VARIANTS.items()}
        single = measure(made, embeddings[:1], rounds)
        batch = measure(made, embeddings[:: len(embeddings) // BATCH][:BATCH], max(3, rounds // 4))
        machine = platform.processor() or platform.machine()
        print(f"\n{checkpoint}, {machine}, one core, {len(sentences)} texts.\n")
        print_engines(single, batch, agree)
        print_limits(loaded.model, single, batch)


if __name__ == "__main__":
    typer.run(main)
