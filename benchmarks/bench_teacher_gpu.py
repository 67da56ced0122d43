"""Embedding on a GPU: SentenceTransformer.encode beside this project's torch path, and where its time goes.

    python benchmarks/bench_teacher_gpu.py [--rounds 5] [--device cuda]

4,096 short texts, as training by rewards embeds them in every step, and 16,384 mixed sentences: those of
$CELLULAR_DATA/open_train.parquet, else of Python's own documentation. The variants take turns; medians. The
parts are measured one after the other, the device idle before and after each; the whole call overlaps them.
"""

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Annotated
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import torch
import typer
from sentence_transformers import SentenceTransformer

from cellular.batches import Tokens, tokenised
from cellular.config import TeacherConfig
from cellular.encoders import available_threads
from cellular.graphs import load_sentence_transformer
from cellular.teachers import find_model
from cellular.torch_encoders import TorchEncoder

MODEL = "all-MiniLM-L6-v2"
SHORT, MIXED = 4_096, 16_384
Variant = Callable[[list[str]], object]


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script")] = "cuda",
    scale: Annotated[float, typer.Option(help="share of the texts, to try the script")] = 1.0,
) -> None:
    """Print sentences a second, the parts of the time, and the cosine."""
    mixed = load_sentences(int(MIXED * scale))
    short = [" ".join(text.split()[:8]) for text in mixed[: int(SHORT * scale)]]
    print(f"{describe(device)}, {available_threads()} CPU threads, torch {torch.__version__}")
    model = load_sentence_transformer(find_model(MODEL), device)
    encoders = {precision: load_encoder(device, precision) for precision in ("fp32", "bf16")}
    for title, texts in {"short": short, "mixed": mixed}.items():
        variants = load_variants(model, encoders)
        print(f"\n{len(texts)} {title} texts, {np.mean(list(map(len, texts))):.0f} characters\n")
        print("| path | sentences/s | ratio |\n|---|---|---|")
        seconds = take_turns(variants, texts, rounds)
        for name, value in seconds.items():
            ratio = next(iter(seconds.values())) / value
            print(f"| {name} | {len(texts) / value:,.0f} | {ratio:.1f} |")
        print("\n| part, ms | fp32 | bf16 |\n|---|---|---|")
        parts = {precision: median_parts(encoder, texts, rounds) for precision, encoder in encoders.items()}
        for part in parts["bf16"]:
            print(f"| {part} | {parts['fp32'][part]:.1f} | {parts['bf16'][part]:.1f} |")
    compare(model, encoders, mixed[:1000])


def load_sentences(count: int) -> list[str]:
    """Real sentences in a random order that is always the same, repeated where there are too few."""
    file = Path(os.environ.get("CELLULAR_DATA", "../shared/data")) / "open_train.parquet"
    if file.is_file():
        texts = pq.read_table(file, columns=["text"])["text"].to_pylist()
    else:
        documentation = re.sub(r"\s+", " ", " ".join(topics.values()))
        texts = [text for text in re.split(r"(?<=\.) ", documentation) if 12 <= len(text) <= 240]
    random.Random(1).shuffle(texts)
    return (texts * (1 + count // len(texts)))[:count]


def load_encoder(device: str, precision: str) -> TorchEncoder:
    """This project's torch path, with a model of its own: bf16 rounds it."""
    config = TeacherConfig.model_validate({"name": MODEL, "precision": precision, "device": device})
    return TorchEncoder(load_sentence_transformer(find_model(MODEL), device), config)


def load_variants(model: SentenceTransformer, encoders: dict[str, TorchEncoder]) -> dict[str, Variant]:
    """What is compared; the first is the anchor of the ratios."""
    variants: dict[str, Variant] = {
        "SentenceTransformer.encode": lambda texts: model.encode(texts, show_progress_bar=False),
        "the same, batch_size=512, bf16": lambda texts: large_batches(model, texts),
    }
    for precision, encoder in encoders.items():
        variants[f"encode, {precision}"] = encoder.encode
        variants[f"encode_tensor, {precision}"] = encoder.encode_tensor
    return variants


def large_batches(model: SentenceTransformer, texts: list[str]) -> object:
    """What a user tunes by hand."""
    with torch.autocast(model.device.type, torch.bfloat16):
        return model.encode(texts, batch_size=512, show_progress_bar=False)


def take_turns(variants: dict[str, Variant], texts: list[str], rounds: int) -> dict[str, float]:
    """Median seconds of a call, the first call of each not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, encode in variants.items():
            if number > 2 and name == next(iter(variants)):
                continue  # seconds each
            taken = timed(lambda encode=encode: encode(texts))
            if number:
                seconds[name].append(taken)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def median_parts(encoder: TorchEncoder, texts: list[str], rounds: int) -> dict[str, float]:
    """Milliseconds of the steps of one call, one after the other, and of the call."""
    measured = [parts(encoder, texts) for _ in range(rounds)]
    return {part: 1000 * float(np.median([one[part] for one in measured])) for part in measured[0]}


def parts(encoder: TorchEncoder, texts: list[str]) -> dict[str, float]:
    """Seconds of each step of a call, and how long the host takes to hand the last ones to the device."""
    tokenizer = encoder._tokenizer
    assert tokenizer, "this model is run by its own encode"
    windows = list(encoder._windows(texts))
    with torch.inference_mode():
        vectors = torch.empty(len(texts), encoder.dimension, device=encoder._model.device)
        seconds = {
            "tokenise": timed(lambda: tokenizer.encode_batch_fast(texts)),
            "tokenise and collect": timed(lambda: tokenised(tokenizer, texts)),
        }
        with mock.patch.object(encoder, "_forward", lambda ids, mask: torch.zeros_like(vectors[: len(ids)])):
            seconds["pad and copy"] = timed(lambda: run(encoder, windows, vectors))
        seconds["pad, copy and forward"] = timed(lambda: run(encoder, windows, vectors))
        start = time.perf_counter()
        run(encoder, windows, vectors)
        seconds["the same, until all is issued"] = time.perf_counter() - start
    return seconds | {"the whole call": timed(lambda: encoder.encode_tensor(texts))}


def run(encoder: TorchEncoder, windows: list[Tokens], vectors: torch.Tensor) -> None:
    """What follows tokenising."""
    start = 0
    for tokens in windows:
        stop = start + len(tokens.lengths_N)
        encoder._encode_window(tokens, vectors[start:stop])
        start = stop


def timed(call: Callable[[], object]) -> float:
    """Seconds until the device is done."""
    synchronise()
    start = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(model: SentenceTransformer, encoders: dict[str, TorchEncoder], texts: list[str]) -> None:
    """Print how near the vectors are to the model's own in fp32."""
    expected = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    print()
    for precision, encoder in encoders.items():
        cosine = (encoder.encode(texts) * expected).sum(axis=1)
        print(f"cosine, {precision}: mean {cosine.mean():.6f}, least {cosine.min():.6f}; path {encoder.path}")


def describe(device: str) -> str:
    """The GPU's name."""
    return torch.cuda.get_device_name() if device == "cuda" else device


if __name__ == "__main__":
    typer.run(main)
