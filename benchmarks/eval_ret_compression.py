"""What fewer bits and fewer weights cost: one decoder's forms side by side. Prints a Markdown table.

    python benchmarks/eval_ret_compression.py FP32_FOLDER [NAME=FOLDER ...] --cache FOLDER [--engine native]

FP32_FOLDER is a checkpoint in fp32; from it come bf16, int8 and, plainly rounded, int4. Every NAME=FOLDER is
a further form: calibrated by `cellular ret compress`, or trained by `cellular ret train --precision ...`.
Data: $CELLULAR_DATA, or ../shared/data beside the repository. The cache keeps embeddings.

Each form is decoded greedily in its own precision, on one core; times are medians of single texts, the forms
taking turns.
"""

import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from threadpoolctl import threadpool_limits

from cellular.checkpoint_files import WEIGHTS
from cellular.decoders.ret import Checkpoint, RETDecoder, load_checkpoint, save_checkpoint
from cellular.decoders.ret.sparsity import sparsity
from cellular.decoders.ret.weights import Precision, matrices
from cellular.embeddings import EmbeddingLoader
from cellular.metrics import corpus_scores, text_scores
from pipelines.evaluation_data import HeldOut, held_out_texts, training_counts

DATA = Path(os.environ.get("CELLULAR_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETS = ("captions", "dialogue", "tatoeba", "open")
PLAIN: tuple[Precision, ...] = ("bf16", "int8", "int4")
ENGINE_PRECISION: dict[Precision, Precision] = {"bf16": "fp32"}  # no engine on CPUs computes in bf16
BATCH = 64


@dataclass(frozen=True)
class Form:
    """One form of the decoder."""

    name: str
    decoder: RETDecoder
    precision: Precision
    sparsity: float
    bytes: int


def open_form(name: str, folder: Path, engine: str) -> Form:
    """Read a checkpoint, for an engine that computes in its precision."""
    checkpoint = load_checkpoint(folder)
    precision = ENGINE_PRECISION.get(checkpoint.precision, checkpoint.precision)
    decoder = RETDecoder.load(folder, engine=engine, precision=precision)
    zeros = sparsity(matrices(checkpoint.model))
    return Form(name, decoder, checkpoint.precision, zeros, (folder / WEIGHTS).stat().st_size)


def plain_forms(base: Checkpoint, folder: Path, engine: str) -> list[Form]:
    """The base stored in fewer bits with nothing done about it."""
    forms = []
    for precision in PLAIN:
        save_checkpoint(folder / precision, replace(base, precision=precision))
        name = f"{precision}, plainly rounded" if precision == "int4" else precision
        forms.append(open_form(name, folder / precision, engine))
    return forms


def milliseconds(forms: list[Form], rows: np.ndarray, rounds: int = 3) -> dict[str, tuple[float, float]]:
    """Median time of one text, and of a text in a batch, for each form."""
    alone: dict[str, list[float]] = {form.name: [] for form in forms}
    together: dict[str, list[float]] = {form.name: [] for form in forms}
    for _ in range(rounds):
        for form in forms:
            for row in rows:
                alone[form.name].append(timed(form, row[None]))
            together[form.name].append(timed(form, rows) / len(rows))
    return {name: (float(np.median(alone[name])), min(together[name])) for name in alone}


def timed(form: Form, rows: np.ndarray) -> float:
    """Milliseconds of a call."""
    start = time.perf_counter()
    form.decoder.decode_batch(rows)
    return (time.perf_counter() - start) * 1e3


def quality(outputs: list[str], held_out: HeldOut, loader: EmbeddingLoader) -> str:
    """A cell of the table."""
    cosines = (loader.encode(outputs) * held_out.embeddings).sum(axis=1)
    scores = text_scores(outputs, held_out.texts, cosines)
    bleu = corpus_scores(outputs, held_out.texts)["bleu"]
    means = f"{scores.f1.mean():.3f} / {scores.exact_match.mean():.3f} / {scores.cosine.mean():.3f}"
    return f"{bleu.mean:.1f} ± {bleu.error:.1f} / {means}"


def decode(form: Form, rows: np.ndarray) -> list[str]:
    """Every text of a set."""
    return [
        text
        for start in range(0, len(rows), BATCH)
        for text in form.decoder.decode_batch(rows[start : start + BATCH])
    ]


def share_of_same(outputs: list[list[str]], others: list[list[str]]) -> float:
    """Of all texts."""
    pairs = [pair for texts in zip(outputs, others, strict=True) for pair in zip(*texts, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def print_table(forms: list[Form], sets: list[HeldOut], loader: EmbeddingLoader) -> None:
    """A line a form."""
    times = milliseconds(forms, np.concatenate([part.embeddings[: BATCH // len(sets)] for part in sets]))
    names = " | ".join(part.name for part in sets)
    print(f"| | bytes | zeros | ms alone | ms of {BATCH} | same text | {names} |")
    print(f"|{'---|' * (6 + len(sets))}")
    base = [decode(forms[0], part.embeddings) for part in sets]
    for form in forms:
        outputs = [decode(form, part.embeddings) for part in sets]
        cells = [quality(texts, part, loader) for texts, part in zip(outputs, sets, strict=True)]
        facts = f"{form.name} | {form.bytes:,} | {form.sparsity:.1%}"
        speed = " | ".join(f"{value:.2f}" for value in times[form.name])
        same = share_of_same(base, outputs)
        print(f"| {facts} | {speed} | {same:.3f} | {' | '.join(cells)} |", flush=True)


def main(
    base: Annotated[Path, typer.Argument(help="folder of the fp32 checkpoint")],
    others: Annotated[list[str] | None, typer.Argument(help="NAME=FOLDER of further forms")] = None,
    cache: Annotated[Path, typer.Option(help="folder for embeddings")] = Path("cache"),
    engine: Annotated[str, typer.Option(help="what runs the decoder")] = "auto",
    limit: Annotated[int, typer.Option(help="texts of a set")] = 1000,
) -> None:
    """Print the table."""
    training = training_counts(DATA)
    pairs = [other.partition("=")[::2] for other in others or []]
    torch.set_num_threads(1)
    with (
        EmbeddingLoader(cache_dir=cache) as loader,
        tempfile.TemporaryDirectory() as folder,
        threadpool_limits(1),
    ):
        texts = {name: held_out_texts(DATA / f"{name}_test.parquet", training, None, limit) for name in SETS}
        vectors = {name: loader.encode(some) for name, some in texts.items()}
        sets = [HeldOut(name, texts[name], rows, rows) for name, rows in vectors.items()]
        forms = [open_form("fp32", base, engine), *plain_forms(load_checkpoint(base), Path(folder), engine)]
        forms += [open_form(name, Path(path), engine) for name, path in pairs]
        print(
            f"Engine {forms[0].decoder.engine.name}; BLEU / F1 / exact match / cosine, {limit} texts a set.\n"
        )
        print_table(forms, sets, loader)


if __name__ == "__main__":
    typer.run(main)
