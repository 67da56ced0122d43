"""How good decoded texts are: assembly, choice by context, and the cache's hit rate. Prints Markdown tables.

    python benchmarks/eval_phrase_bank.py --cache FOLDER [--bank-rows 100000] [--split test]

Data: $CELLULAR_DATA, or ../shared/data beside the repository. FOLDER keeps embeddings and the bank, so that a
second run starts at once. Every mean stands beside its standard error.
"""

import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import faiss
import numpy as np
import pyarrow.parquet as pq
import typer
from threadpoolctl import threadpool_limits

from cellular.bank import PhraseBank, create_bank, current_version
from cellular.config import DecodingConfig
from cellular.decoders import ASSEMBLERS, PhraseBankDecoder, Session
from cellular.decoders.assembly import Pool
from cellular.decoders.context import EMPTY_SESSION, ContextPrior
from cellular.embeddings import EmbeddingLoader
from cellular.types import FloatArray, IntArray

DATA = Path(os.environ.get("CELLULAR_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETS = ("captions", "dialogue", "tatoeba", "open")
PER_SET = 250
DIALOGUES = 900
SIMILARITIES = (0.98, 0.95, 0.90)


@dataclass
class Case:
    """An input text, the set it comes from, and what was said before it."""

    kind: str
    text: str
    before: list[str] = field(default_factory=list)


def usable(text: str) -> bool:
    """The protocol's lengths."""
    return 3 <= len(text) <= 160


def column(name: str, split: str, key: str = "text") -> list[str]:
    """A column of a data file."""
    return list(pq.read_table(DATA / f"{name}_{split}.parquet", columns=[key])[key].to_pylist())


def training_sentences() -> Counter[str]:
    """All that a bank may be made of, with how often each occurs."""
    return Counter(text for name in SETS for text in column(name, "train") if usable(text))


def open_bank(folder: Path, rows: int, loader: EmbeddingLoader) -> PhraseBank:
    """A bank of a random sample of the training sentences."""
    path = folder / f"bank-{rows}"
    if current_version(path) is None:
        counts = training_sentences()
        sample = random.Random(1).sample(sorted(counts), rows)
        create_bank(path, sample, loader, counts=[counts[text] for text in sample])
    return PhraseBank.open(path)


def inputs(split: str, sentences: int) -> list[Case]:
    """PER_SET inputs a set, each of so many consecutive sentences that occur in no training file."""
    known = training_sentences()
    cases = []
    for name in SETS:
        texts = column(name, split)
        owners = column(name, split, "dialogue_id") if name == "dialogue" else [""] * len(texts)
        starts = [
            start
            for start in range(len(texts) - sentences + 1)
            if all(usable(text) and text not in known for text in texts[start : start + sentences])
            and owners[start] == owners[start + sentences - 1]
        ]
        unique = sorted({" ".join(texts[start : start + sentences]): start for start in starts}.items())
        random.Random(1).shuffle(unique)
        cases += [Case(name, text, earlier(texts, owners, start)) for text, start in unique[:PER_SET]]
    return cases


def earlier(texts: list[str], owners: list[str], start: int) -> list[str]:
    """The dialogue's turns before a row; none where the set has no dialogues."""
    first = start
    while owners[start] and first and owners[first - 1] == owners[start]:
        first -= 1
    return texts[first:start]


def session_of(texts: list[str], loader: EmbeddingLoader) -> Session:
    """The session that said these texts."""
    session = EMPTY_SESSION
    for text, vector in zip(texts[-8:], loader.encode(texts[-8:]), strict=True):
        session = session.after(vector, text)
    return session


def mean_and_error(values: FloatArray, digits: int = 4) -> str:
    """Mean ± standard error."""
    return f"{values.mean():.{digits}f} ± {values.std() / np.sqrt(len(values)):.{digits}f}"


def assembly_table(bank: PhraseBank, loader: EmbeddingLoader, cases: list[Case]) -> None:
    """Teacher cosine of each method's texts with the inputs."""
    targets = loader.encode([case.text for case in cases])
    sessions = [session_of(case.before, loader) for case in cases]
    kinds = np.array([case.kind for case in cases])
    print(
        "| method | teacher cosine | gain on greedy | " + " | ".join(SETS) + " | phrases | ms a text, p50 |"
    )
    print("|---|---|---|" + "---|" * (len(SETS) + 2))
    constant = bank.phrase(int(bank.search(bank.matrix[::50].mean(0, dtype=np.float32), 1).ids[0, 0]))
    baseline: FloatArray | None = None
    for name, decode in {"constant": lambda row: (constant, 1), **methods(bank, targets, sessions)}.items():
        texts, sizes, seconds = zip(*timed(decode, len(cases)), strict=True)
        cosines = np.einsum("nd,nd->n", loader.encode(texts), targets)
        baseline = cosines if name == "greedy" else baseline
        gain = "" if baseline is None else mean_and_error(cosines - baseline)
        by_set = " | ".join(f"{cosines[kinds == kind].mean():.3f}" for kind in SETS)
        rest = f"{np.mean(sizes):.2f} | {np.median(seconds) * 1e3:.2f}"
        print(f"| {name} | {mean_and_error(cosines)} | {gain} | {by_set} | {rest} |", flush=True)


Decode = Callable[[int], tuple[str, int]]


def methods(bank: PhraseBank, targets: FloatArray, sessions: list[Session]) -> dict[str, Decode]:
    """For each method, from the number of an input to its text and the number of phrases in it."""

    def make(method: str) -> Decode:
        config = DecodingConfig.model_validate({"assembly_method": method, "enable_caching": False})
        decoder = PhraseBankDecoder(config)
        decoder.load_phrase_bank(bank)

        def decode(row: int) -> tuple[str, int]:
            result = decoder.decode_batch(targets[row], session=sessions[row])[0]
            return result.text, len(result.phrases)

        return decode

    return {method: make(method) for method in ASSEMBLERS}


def timed(decode: Decode, rows: int) -> Iterator[tuple[str, int, float]]:
    """Each row's text, phrases and seconds."""
    for row in range(rows):
        started = time.perf_counter()
        text, phrases = decode(row)
        yield text, phrases, time.perf_counter() - started


@dataclass
class Dialogues:
    """Turns of whole dialogues, by row of `texts`."""

    texts: list[str]
    vectors: FloatArray
    turns: list[list[int]]


def dialogues(split: str, loader: EmbeddingLoader) -> Dialogues:
    """A random sample of dialogues. The texts are sorted: their order says nothing about dialogues."""
    spoken: dict[str, list[str]] = defaultdict(list)
    for owner, text in zip(column("dialogue", split, "dialogue_id"), column("dialogue", split), strict=True):
        spoken[owner].append(text)
    chosen = random.Random(1).sample(sorted(spoken), min(DIALOGUES, len(spoken)))
    texts = sorted({text for owner in chosen for text in spoken[owner]})
    place = {text: row for row, text in enumerate(texts)}
    return Dialogues(
        texts, loader.encode(texts), [[place[text] for text in spoken[owner]] for owner in chosen]
    )


def near_duplicates(vectors: FloatArray, similarity: float, most: int = 10) -> dict[int, list[int]]:
    """Disjoint groups of rows, every two of which have at least this cosine; by each of their rows.

    Made from the vectors alone, so that no member is special.
    """
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, near = index.search(vectors, 40)
    group_of: dict[int, list[int]] = {}
    for anchor in np.random.default_rng(0).permutation(len(vectors)).tolist():
        if anchor in group_of:
            continue
        group = [anchor]
        for row in near[anchor].tolist():
            close = row not in group and row not in group_of and len(group) < most
            if close and (vectors[row] @ vectors[group].T).min() >= similarity:
                group.append(row)
        if len(group) > 1:
            group_of |= dict.fromkeys(group, sorted(group))
    return group_of


def context_table(folder: Path, split: str, loader: EmbeddingLoader) -> None:
    """Share of turns told from their near-duplicates, the target being the group's centre."""
    spoken = dialogues(split, loader)
    path = folder / f"turns-{split}"
    if current_version(path) is None:
        create_bank(path, spoken.texts, loader)
    bank = PhraseBank.open(path)
    prior = ContextPrior(bank)
    print("| cosine of the candidates | turns | candidates | chance | context-free | context-aware |")
    print("|---|---|---|---|---|---|")
    for similarity in SIMILARITIES:
        groups = near_duplicates(spoken.vectors, similarity)
        places = [
            (turns, number, groups[turns[number]])
            for turns in spoken.turns
            for number in range(1, len(turns))
            if turns[number] in groups
        ]
        outcomes = np.array([choices(bank, prior, spoken, *place) for place in places])
        sizes = np.array([len(group) for _, _, group in places])
        owners = np.array([group[0] for _, _, group in places])
        shares = " | ".join(clustered_mean(hits, owners) for hits in outcomes.T)
        print(f"| ≥ {similarity} | {len(sizes)} | {sizes.mean():.2f} | {(1 / sizes).mean():.3f} | {shares} |")


def clustered_mean(hits: FloatArray, owners: IntArray) -> str:
    """Mean ± standard error where the turns of one group of near-duplicates are not independent."""
    excess = np.bincount(owners, weights=hits - hits.mean())
    return f"{hits.mean():.3f} ± {np.sqrt(excess @ excess) / len(hits):.3f}"


def choices(
    bank: PhraseBank, prior: ContextPrior, spoken: Dialogues, turns: list[int], number: int, group: list[int]
) -> tuple[bool, bool]:
    """Whether the nearest phrase is the one that was said, and whether the one chosen by context is."""
    config = DecodingConfig(max_phrases=1)
    centre = spoken.vectors[group].mean(axis=0)
    centre /= np.linalg.norm(centre)
    cosines = bank.embeddings(group) @ centre
    order = np.argsort(-cosines, kind="stable")
    pool = Pool(bank, centre, np.array(group)[order], len(group), cosines[order])
    session = Session(capacity=config.context_turns)
    for row in turns[max(0, number - config.context_turns) : number]:
        session = session.after(spoken.vectors[row], spoken.texts[row])
    free = ASSEMBLERS["greedy"].choose(pool, config, None)
    aware = ASSEMBLERS["context_aware"].choose(pool, config, config.context_weight * prior(pool, session))
    return free.phrases == (turns[number],), aware.phrases == (turns[number],)


def cache_table(bank: PhraseBank, split: str, loader: EmbeddingLoader) -> None:
    """Hit rates on turns as they were spoken, and on Zipf's law over them; half rounded to float16."""
    spoken, rng = dialogues(split, loader), np.random.default_rng(1)
    ranks = rng.permutation(len(spoken.texts))
    streams = {"turns as spoken": np.array([row for turns in spoken.turns for row in turns])}
    for exponent in (0.6, 0.8, 1.0):
        shares = 1 / np.arange(1, len(ranks) + 1) ** exponent
        streams[f"Zipf {exponent}"] = rng.choice(ranks, 10_000, p=shares / shares.sum())
    print("| stream | requests | different | hit rate, 1,000 kept | hit rate, 10,000 kept |")
    print("|---|---|---|---|---|")
    for name, stream in streams.items():
        rates = " | ".join(f"{hit_rate(bank, spoken.vectors[stream], size):.3f}" for size in (1_000, 10_000))
        print(f"| {name} | {len(stream)} | {len(set(stream.tolist()))} | {rates} |")


def hit_rate(bank: PhraseBank, vectors: FloatArray, size: int) -> float:
    """Share of a stream that a cache of this size answers."""
    decoder = PhraseBankDecoder(DecodingConfig(assembly_method="greedy", cache_size=size))
    decoder.load_phrase_bank(bank)
    for number, vector in enumerate(vectors):
        decoder.decode(vector.astype(np.float16) if number % 2 else vector)
    answered = decoder.get_statistics()["sources"]
    return answered["cache"] / len(vectors)


def main(
    cache: Annotated[Path, typer.Option(help="folder for embeddings and the bank")],
    bank_rows: int = 100_000,
    split: str = "test",
) -> None:
    """Print every table."""
    cache.mkdir(parents=True, exist_ok=True)
    with EmbeddingLoader(cache_dir=cache / "embeddings") as loader, threadpool_limits(1):
        bank = open_bank(cache, bank_rows, loader)
        print(f"Bank: {len(bank)} phrases, {bank.manifest.index}")
        for sentences in (2, 1):
            print(f"\n## Inputs of {sentences} no-hit sentence(s), {split}\n")
            assembly_table(bank, loader, inputs(split, sentences))
        print(f"\n## Near-duplicates told apart, {split}\n")
        context_table(cache, split, loader)
        print(f"\n## Cache, {split}\n")
        cache_table(bank, split, loader)


if __name__ == "__main__":
    typer.run(main)
