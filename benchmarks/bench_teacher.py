"""Embedding of real sentences: SentenceTransformer.encode beside the teacher in C and by OpenVINO.

    python benchmarks/bench_teacher.py [--sentences 1000] [--rounds 5] [--report FILE.md]

The variants take turns in one process, so that noise meets all of them; medians and ratios of them. The
sentences are those of $CELLULAR_DATA/open_test.parquet, else of Python's own documentation.
"""

import os
import platform
import random
import re
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated, get_args

import numpy as np
import pyarrow.parquet as pq
import torch
import typer
from tqdm import tqdm

from cellular.bert_engine import BertEncoder, Precision
from cellular.config import TeacherConfig
from cellular.encoders import OpenVINOEncoder, available_threads
from cellular.errors import CellularError
from cellular.graphs import UnsupportedModelError, exported, load_sentence_transformer
from cellular.int8_graphs import neighbour_agreement, quantised
from cellular.teachers import find_model, fingerprint
from cellular.types import FloatArray

MODEL = "all-MiniLM-L6-v2"
Variant = Callable[[Sequence[str]], FloatArray]


def main(
    sentences: Annotated[int, typer.Option(min=2, help="sentences a round")] = 1000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int | None, typer.Option(help="default: every core")] = None,
    report: Annotated[Path | None, typer.Option(help="write the tables there as well")] = None,
) -> None:
    """Print throughput, latency and faithfulness side by side."""
    threads = threads or available_threads()
    texts = load_sentences(sentences)
    variants = load_variants(threads)
    vectors = {name: encode(texts) for name, encode in variants.items()}
    bulk = take_turns(variants, [texts] * rounds, "all sentences")
    single = take_turns(variants, [[text] for text in texts[:50]], "one sentence")
    text = "\n".join(
        [
            f"{date.today()}, {processor()}, {threads} threads, {len(texts)} sentences of "
            f"{np.mean([len(text) for text in texts]):.0f} characters, median of {rounds} rounds:\n",
            *table(len(texts), bulk, single, vectors),
        ]
    )
    print(text)
    if report is not None:
        report.write_text(f"# Teacher\n\n`python benchmarks/bench_teacher.py`, {text}\n", encoding="utf-8")


def load_sentences(count: int) -> list[str]:
    """Real sentences in a random order that is always the same."""
    file = Path(os.environ.get("CELLULAR_DATA", "../shared/data")) / "open_test.parquet"
    if file.is_file():
        texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
    else:
        documentation = re.sub(r"\s+", " ", " ".join(topics.values()))
        texts = [text for text in re.split(r"(?<=\.) ", documentation) if 12 <= len(text) <= 240]
    return random.Random(1).sample(texts, min(count, len(texts)))


def load_variants(threads: int) -> dict[str, Variant]:
    """What is compared; the first is the anchor of the ratios."""
    torch.set_num_threads(threads)
    folder = find_model(MODEL)
    model = load_sentence_transformer(folder, "cpu")
    space = fingerprint(folder)
    graph = exported(folder, space)
    int8_graph = quantised(graph, space)

    def default(texts: Sequence[str]) -> FloatArray:
        return model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)

    def naive(texts: Sequence[str]) -> FloatArray:
        return np.concatenate([default(texts[start : start + 32]) for start in range(0, len(texts), 32)])

    def openvino(precision: str) -> Variant:
        settings = {"name": MODEL, "precision": precision, "threads": threads}
        used = int8_graph if precision == "int8" else graph
        return OpenVINOEncoder(used, TeacherConfig.model_validate(settings)).encode

    kernel: dict[str, Variant] = {}
    try:
        for precision in get_args(Precision):
            kernel[f"C, {precision}"] = BertEncoder(folder, graph, precision, threads).encode
    except (UnsupportedModelError, CellularError) as error:
        print(f"without the kernel in C: {error}")
    return {
        "SentenceTransformer.encode(all)": default,
        "the same, 32 rows a call in corpus order": naive,
        **{f"OpenVINO, {precision}": openvino(precision) for precision in ("fp32", "bf16", "int8")},
        **kernel,
    }


def take_turns(variants: dict[str, Variant], calls: list[list[str]], title: str) -> dict[str, float]:
    """Median seconds of a call."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for texts in tqdm(calls, title):
        for name, encode in variants.items():
            start = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def table(
    count: int, bulk: dict[str, float], single: dict[str, float], vectors: dict[str, FloatArray]
) -> list[str]:
    """Rows of a Markdown table."""
    lines = [
        "| path | sentences/s | ratio | one sentence, ms | ratio | cosine, mean | least | same nearest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    anchor = next(iter(vectors))
    for name, found in vectors.items():
        cosine = (found * vectors[anchor]).sum(axis=1)
        agreement = neighbour_agreement(found, vectors[anchor])
        lines.append(
            f"| {name} | {count / bulk[name]:.0f} | {bulk[anchor] / bulk[name]:.2f} "
            f"| {1000 * single[name]:.1f} | {single[anchor] / single[name]:.2f} "
            f"| {cosine.mean():.6f} | {cosine.min():.6f} | {agreement:.3f} |"
        )
    return lines


def processor() -> str:
    """The processor and what it multiplies natively, as far as Linux says."""
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.is_file() else ""
    name = re.search(r"model name\s*: (.*)", text)
    flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", text)]
    return f"{name[1] if name else platform.machine()} ({', '.join(flags) or 'no AVX-512'})"


if __name__ == "__main__":
    typer.run(main)
