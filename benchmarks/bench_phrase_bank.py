"""Search and decoding beside what a user would write: a flat FAISS scan, and bare search of the bank's index.

    python benchmarks/bench_phrase_bank.py --bank BANK [--queries QUERIES.npy]
    python benchmarks/bench_phrase_bank.py --vectors VECTORS.npy --rows 100000

One thread. The variants take turns, so that noise meets all of them. Without --queries, rows
of the bank are searched for, each without itself among the hits.
"""

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import faiss  # before the package, which would set its OpenBLAS: the scan is FAISS as it comes
import numpy as np
import torch
import typer
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from cellular.bank import PhraseBank, create_bank
from cellular.bank.calibration import exclude_self, recall, sample_rows
from cellular.bank.index import open_index
from cellular.bank.manifest import INDEX, version_folder
from cellular.bank.search import stored_view
from cellular.config import DecodingConfig
from cellular.decoders import PhraseBankDecoder, Session
from cellular.types import FloatArray, IntArray

K = 10
BATCH = 64
ROUND = 100  # queries in a row
Variant = Callable[[FloatArray], Any]  # searches (n, D) queries


class StoredVectors:
    """A teacher that has already seen its texts: text "i" has row i of an array as its embedding."""

    def __init__(self, name: str, vectors: FloatArray) -> None:
        self.name = name
        self.fingerprint = f"{name}:0"
        self.dimension = vectors.shape[1]
        self._vectors = vectors

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """The rows that the texts number."""
        return self._vectors[[int(text) for text in texts]]


def flat_scan(bank: PhraseBank) -> Variant:
    """FAISS's exact search as it comes: float32 in memory, default settings."""
    flat = faiss.IndexFlatIP(bank.dimension)
    flat.add(bank.matrix.astype(np.float32))
    return lambda queries: flat.search(queries, K)


def bare_index(bank: PhraseBank) -> Variant:
    """The same index at the same effort, called through FAISS alone."""
    entry = bank.manifest.index
    view = stored_view(bank.matrix)
    if entry.effort is None:
        return lambda queries: view.search(queries, K)
    base = open_index(version_folder(bank.path, bank.version) / INDEX)
    if isinstance(base, faiss.IndexIVF):
        base.nprobe = entry.effort
    else:
        base.hnsw.efSearch = entry.effort
    index = faiss.IndexRefine(base, view)
    index.k_factor = entry.candidates / K
    return lambda queries, _alive=(base, view): index.search(queries, K)


def single_variants(bank: PhraseBank) -> dict[str, Variant]:
    """What is timed one query at a time; the first is the anchor."""
    return {
        "FAISS flat scan": flat_scan(bank),
        "bare search of the bank's index": bare_index(bank),
        "PhraseBank.search": lambda queries: bank.search(queries, K),
    }


def decode_variants(bank: PhraseBank) -> dict[str, Variant]:
    """Whole decodes of one embedding, K candidates each; the first is the anchor."""
    return {
        "bare search of the bank's index": bare_index(bank),
        "greedy, nothing cached": decode(bank, assembly_method="greedy", enable_caching=False),
        "greedy, unmonitored": decode(
            bank, assembly_method="greedy", enable_caching=False, enable_performance_monitoring=False
        ),
        "greedy, answers looked up and kept": decode(bank, assembly_method="greedy"),
        "weighted": decode(bank, assembly_method="weighted", enable_caching=False),
        "beam_search": decode(bank, assembly_method="beam_search", enable_caching=False),
        "context_aware, four turns before": decode(bank, turns=4, enable_caching=False),
    }


def decode(bank: PhraseBank, turns: int = 0, **settings: Any) -> Variant:
    """Decoding of a single query with these settings, after so many turns."""
    decoder = PhraseBankDecoder(DecodingConfig(top_k=K, **settings))
    decoder.load_phrase_bank(bank)
    session = Session()
    for row in range(turns):
        session = session.after(bank.embeddings([row])[0], bank.phrase(row))
    return lambda queries: decoder.decode(queries[0], session=session)


def batch_variants(bank: PhraseBank) -> dict[str, Variant]:
    """What is timed in batches; the first is the anchor."""
    return {
        "FAISS flat scan": flat_scan(bank),
        "PhraseBank.exact_search": lambda queries: bank.exact_search(queries, K),
        "PhraseBank.search": lambda queries: bank.search(queries, K),
    }


def measure(variants: dict[str, Variant], batches: Sequence[FloatArray]) -> dict[str, FloatArray]:
    """Milliseconds a query of each variant on each batch; the variants take turns, a round each.

    The order moves on by one each round: who comes first finds the round's data in colder caches.
    """
    times = {name: np.empty(len(batches)) for name in variants}
    for first in tqdm(range(0, len(batches), ROUND), desc=f"batches of {len(batches[0])}", leave=False):
        start = first // ROUND % len(variants)
        for name, search in [*variants.items()][start:] + [*variants.items()][:start]:
            search(batches[first - 1])  # the variant before has emptied the caches
            for number in range(first, min(first + ROUND, len(batches))):
                began = time.perf_counter()
                search(batches[number])
                times[name][number] = (time.perf_counter() - began) * 1000 / len(batches[number])
    return times


def print_table(times: dict[str, FloatArray], anchor_name: str = "the flat scan") -> None:
    """A Markdown table; ratios of medians to the anchor's, above 1 is faster."""
    anchor = np.median(next(iter(times.values())))
    print(f"| | p50, ms a query | p99, ms a query | ratio to {anchor_name} |\n|---|---|---|---|")
    for name, values in times.items():
        middle, high = np.percentile(values, [50, 99])
        print(f"| {name} | {middle:.3f} | {high:.3f} | {anchor / middle:.2f} |")
    print()


def recall_at_10(bank: PhraseBank, queries: FloatArray, own: IntArray | None) -> float:
    """Against exact search; rows of the bank (`own`) without themselves among the hits."""
    if own is None:
        return recall(bank.search(queries, K).scores, bank.exact_search(queries, K).scores)
    exact, _ = exclude_self(*bank.exact_search(queries, K + 1), own, K)
    found, _ = exclude_self(*bank.search(queries, K + 1), own, K)
    return recall(found, exact)


def report(bank: PhraseBank, queries: FloatArray, own: IntArray | None, repeats: int) -> None:
    """Measure and print everything about one bank."""
    entry = bank.manifest.index
    print(f"\n## {len(bank):,} phrases, {bank.manifest.teacher.name}, {bank.dimension}-d\n")
    print(
        f"{platform.processor() or platform.machine()}, one thread, FAISS {faiss.__version__}. Index", end=" "
    )
    print(f"{entry.factory}, effort {entry.effort}, {entry.candidates} candidates re-ranked.", end=" ")
    print(f"recall@10 {recall_at_10(bank, queries, own):.4f} on {len(queries)} queries.\n")
    singles = [queries[n % len(queries)][np.newaxis] for n in range(repeats)]
    print_table(measure(single_variants(bank), singles))
    print("Decoding:\n")
    print_table(measure(decode_variants(bank), singles), "bare search")
    print(f"Batches of {BATCH}:\n")
    batches = [np.roll(queries, -n * BATCH, axis=0)[:BATCH] for n in range(max(5, repeats // 100))]
    print_table(measure(batch_variants(bank), batches))


def main(
    bank: Annotated[Path | None, typer.Option(help="an existing bank")] = None,
    queries: Annotated[Path | None, typer.Option(help=".npy of (N, D) embeddings the bank lacks")] = None,
    vectors: Annotated[Path | None, typer.Option(help=".npy of (N, D) embeddings to make a bank of")] = None,
    rows: Annotated[int, typer.Option(help="how many of the vectors")] = 100_000,
    repeats: Annotated[int, typer.Option(help="single queries to time")] = 1000,
) -> None:
    """Compare the search of a phrase bank with a flat scan."""
    if (bank is None) == (vectors is None):
        raise typer.BadParameter("give either --bank or --vectors")
    with tempfile.TemporaryDirectory() as folder:
        if vectors is not None:
            bank = Path(folder)
            teacher = StoredVectors(vectors.stem, np.load(vectors, mmap_mode="r")[:rows])
            create_bank(bank, [str(row) for row in range(rows)], teacher)
        opened = PhraseBank.open(bank)
        own = sample_rows(len(opened), 1000) if queries is None else None
        asked = np.load(queries)[:1000].astype(np.float32) if own is None else opened.embeddings(own)
        faiss.omp_set_num_threads(1)
        torch.set_num_threads(1)
        with threadpool_limits(1):
            report(opened, asked, own, repeats)


if __name__ == "__main__":
    typer.run(main)
