"""Adapters beside ridge and orthogonal Procrustes, both ways, on texts that no training has seen.

    python benchmarks/bench_adapter.py --run RUN [--adapter FOLDER]... [--data FOLDER] [--decoded NAME]...

RUN is the folder of a training by `cellular adapter train`: its pairs give the maps in closed form, and its
texts the nearest phrases. R@1 is among the 1,000 texts of a set. A round trip goes to the target's space and
back. Decoded are the target's own embeddings and those of `--decoded` rows, by RET and as nearest phrase.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import torch
import typer
from tqdm import tqdm

from cellular.adapter import Affine, PairSums, UniversalAdapter, load_maps, procrustes
from cellular.decoders.ret import RETDecoder
from cellular.metrics import corpus_scores, estimate, text_scores
from cellular.teachers import Teacher, load_teacher
from cellular.types import FloatArray
from pipelines.adapter_data import START
from pipelines.evaluation_data import data_folder, held_out_texts, set_names, training_counts

Map = Callable[[FloatArray], FloatArray]
COLUMNS = ("cosine", "R@1", "back: cosine", "R@1", "round trip: cosine", "R@1")


@dataclass(frozen=True)
class Row:
    """A way to map, and its way back."""

    there: Map
    back: Map


@dataclass(frozen=True)
class TestSet:
    """Texts, and their embeddings by both teachers."""

    name: str
    texts: list[str]
    source: FloatArray
    target: FloatArray


def affine(map: Affine) -> Map:
    """A map in closed form, its rows of unit length."""

    def apply(rows: FloatArray) -> FloatArray:
        mapped: FloatArray = rows @ map.weight + map.bias
        return mapped / np.linalg.norm(mapped, axis=1, keepdims=True)

    return apply


def rows_of(pairs: Path, adapters: list[Path]) -> dict[str, Row]:
    """The maps in closed form, then the adapters."""
    sums = PairSums.total(map(PairSums.load, sorted(pairs.glob("sums/train/*.safetensors"))))
    there, back = load_maps(pairs / START)
    rows = {
        "Procrustes": Row(affine(procrustes(sums)), affine(procrustes(sums.reversed))),
        "ridge": Row(affine(there), affine(back)),
    }
    for folder in adapters:
        adapter = UniversalAdapter.load(folder)
        label = f"{folder.name}: {adapter.strategy}, {adapter.parameters / 1e6:.2f} M"
        rows[label] = Row(adapter, lambda rows, adapter=adapter: adapter(rows, reverse=True))
    return rows


def recall(found: FloatArray, wanted: FloatArray) -> float:
    """Share of rows whose nearest wanted one is their own."""
    return float(((found @ wanted.T).argmax(1) == np.arange(len(wanted))).mean())


def mapping_scores(row: Row, test: TestSet) -> list[float]:
    """In the order of COLUMNS."""
    there, back = row.there(test.source), row.back(test.target)
    scores = []
    for found, wanted in ((there, test.target), (back, test.source), (row.back(there), test.source)):
        scores += [float((found * wanted).sum(1).mean()), recall(found, wanted)]
    return scores


def nearest_phrases(pairs: Path, rows: FloatArray) -> list[str]:
    """The training text whose embedding is nearest to each row, by exact search."""
    best, texts = np.full(len(rows), -np.inf), [""] * len(rows)
    for path in tqdm(sorted((pairs.parent / "train").glob("*.parquet")), "search"):
        table = pq.read_table(path, columns=["text", "embedding"])
        values = table["embedding"].combine_chunks().flatten().to_numpy().astype(np.float32)
        stored = torch.from_numpy(values.reshape(table.num_rows, -1))
        scores, numbers = (torch.from_numpy(rows) @ stored.T).max(1)
        for row in np.flatnonzero(scores.numpy() > best):
            best[row], texts[row] = scores[row], table["text"][int(numbers[row])].as_py()
    return texts


def decoded_cells(outputs: list[str], test: TestSet, teacher: Teacher) -> str:
    """BLEU, F1 and the cosine of the outputs' embeddings to the true ones."""
    cosines = (teacher.encode(outputs) * test.target).sum(1)
    single, corpus = text_scores(outputs, test.texts, cosines), corpus_scores(outputs, test.texts)
    f1, cosine = estimate(single.f1), estimate(single.cosine)
    bleu = corpus["bleu"]
    return (
        f"{bleu.mean:.1f} ± {bleu.error:.1f} | {f1.mean:.3f} ± {f1.error:.3f} | "
        f"{cosine.mean:.3f} ± {cosine.error:.3f}"
    )


def print_mapping(test: TestSet, rows: Mapping[str, Row]) -> None:
    """Markdown."""
    print(f"\n### {test.name}, {len(test.texts)} texts\n\n| | {' | '.join(COLUMNS)} |")
    print("|---|" + "---:|" * len(COLUMNS))
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{score:.3f}' for score in mapping_scores(row, test))} |", flush=True)


def print_decoded(test: TestSet, rows: Mapping[str, Row], pairs: Path, teacher: Teacher) -> None:
    """Markdown."""
    decoder = RETDecoder.load()
    print(f"\n### {test.name}, decoded\n\n| embeddings | decoder | BLEU | F1 | cosine |")
    print("|---|---|---:|---:|---:|")
    mapped = {name: row.there(test.source) for name, row in rows.items()}
    for name, vectors in {"the target's own": test.target, **mapped}.items():
        written, phrases = list(decoder.decode_batch(vectors)), nearest_phrases(pairs, vectors)
        print(f"| {name} | RET, greedy | {decoded_cells(written, test, teacher)} |")
        print(f"| {name} | nearest phrase | {decoded_cells(phrases, test, teacher)} |", flush=True)


def main(
    run: Annotated[Path, typer.Option(help="folder of a training, or of its prepared data")],
    adapter: Annotated[list[Path] | None, typer.Option(help="folders of adapters")] = None,
    decoded: Annotated[list[str] | None, typer.Option(help="rows that are decoded; default: none")] = None,
    source: Annotated[str, typer.Option(help="the teacher that is adapted")] = "lsa",
    target: Annotated[str, typer.Option(help="the teacher whose space is wanted")] = "all-MiniLM-L6-v2",
    data: Annotated[Path | None, typer.Option(help="folder; default: CELLULAR_DATA")] = None,
    split: Annotated[str, typer.Option(help="valid or test")] = "test",
    limit: Annotated[int, typer.Option(help="texts a set")] = 1000,
) -> None:
    """Compare adapters with maps in closed form."""
    (pairs,) = {path.parent for path in run.rglob(START)}
    rows = rows_of(pairs, adapter or [])
    teachers = load_teacher(source), load_teacher(target)
    folder = data_folder(data)
    training = training_counts(folder)
    for name in set_names(folder, split, ()):  # type: ignore[arg-type]
        texts = held_out_texts(folder / f"{name}_{split}.parquet", training, None, limit)
        test = TestSet(name, texts, *(teacher.encode(texts) for teacher in teachers))
        print_mapping(test, rows)
        if decoded:
            chosen = {name: row for name, row in rows.items() if any(part in name for part in decoded)}
            print_decoded(test, chosen, pairs, teachers[1])


if __name__ == "__main__":
    typer.run(main)
