"""Tests for what makes embeddings of embeddings: texts that belong together, and damaged embeddings."""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cellular.damage import lose_dimensions, quantise
from cellular.embeddings import EmbeddingLoader
from cellular.errors import CellularError
from cellular.objectives import move
from cellular.training.lattice_config import PairsConfig
from cellular.types import FloatArray
from pipelines.evaluation_data import LONGEST, SHORTEST

SEED = 1
TURNS = 8  # earlier texts, at most

# How the texts of a set belong together; the first whose columns a file has.
PAIRS = (PairsConfig(group="dialogue_id", order="turn"), PairsConfig(group="image_id"))

Damaging = Callable[[Tensor], Tensor]
DAMAGES: dict[str, Damaging] = {
    "none": lambda rows: rows,
    "noise .5": lambda rows: move(rows, torch.full((len(rows), 1), 0.5)),
    "noise 1": lambda rows: move(rows, torch.full((len(rows), 1), 1.0)),
    "noise 2": lambda rows: move(rows, torch.full((len(rows), 1), 2.0)),
    "half the numbers": lambda rows: lose_dimensions(rows, torch.full((len(rows), 1), 0.5)),
    "8 bits": lambda rows: quantise(rows, 8),
    "4 bits": lambda rows: quantise(rows, 4),
    "2 bits": lambda rows: quantise(rows, 2),
}


@dataclass(frozen=True)
class PairTexts:
    """N texts, what follows each, and what came before each, oldest first."""

    sources: list[str]
    targets: list[str]
    earlier: list[list[str]]


@dataclass(frozen=True)
class MappingTest:
    """R embeddings, each with the one that is wanted, among those of the others.

    Attributes:
        name: of the set or of the damage.
        sources, targets: (R, E) float32 of unit length.
        earlier: of each source the embeddings (N, E) before it, oldest first; None: not to be given.
    """

    name: str
    sources: FloatArray
    targets: FloatArray
    earlier: list[FloatArray] | None = None


def pairs_of(file: Path) -> PairsConfig | None:
    """How the texts of a file belong together, None if its columns do not say."""
    columns = pq.read_schema(file).names
    return next((pairs for pairs in PAIRS if {pairs.group, pairs.order} - {None} <= set(columns)), None)


def held_out_pairs(file: Path, pairs: PairsConfig, seen: Collection[str], limit: int) -> PairTexts:
    """Pairs whose target no decoder has seen: each such text once, sorted, shuffled, cut.

    Of dialogues a text is asked for after its first occurrence; of a group without order one text is asked
    for, after the text that stands next to it, round and round.

    Raises:
        CellularError: there are none.
    """
    found = {pair.target: pair for pair in reversed(list(_pairs(file, pairs)))}  # the first occurrence stays
    usable = sorted(text for text in found if SHORTEST <= len(text) <= LONGEST and text not in seen)
    random.Random(SEED).shuffle(usable)
    if not pairs.ordered:
        usable = list({found[text].group: text for text in reversed(usable)}.values())[::-1]
    if not usable:
        raise CellularError(f"no text of {file} can be used: each is in a train file, or alone in its group")
    return _texts([found[text] for text in usable[:limit]])


def training_pairs(file: Path, pairs: PairsConfig, count: int) -> PairTexts:
    """A sample of a train file's pairs, for baselines that are fitted: each target once."""
    found = {pair.target: pair for pair in _pairs(file, pairs)}
    return _texts(random.Random(SEED).sample(list(found.values()), min(count, len(found))))


def embed_pairs(name: str, texts: PairTexts, loader: EmbeddingLoader) -> MappingTest:
    """The same as embeddings, with what came before."""
    before = loader.encode([text for some in texts.earlier for text in some] or texts.sources[:1])
    ends = np.cumsum([len(some) for some in texts.earlier])
    earlier = np.split(before[: ends[-1]], ends[:-1])
    return MappingTest(name, loader.encode(texts.sources), loader.encode(texts.targets), earlier)


def check_damage(name: str) -> None:
    """Refuse what `damaged` would not know.

    Raises:
        CellularError: no name in DAMAGES.
    """
    if name not in DAMAGES:
        raise CellularError(f"no damage {name}: choose {', '.join(DAMAGES)}")


def damaged(name: str, embeddings: FloatArray) -> MappingTest:
    """Embeddings to be mended, the same whenever this is called."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        sources = DAMAGES[name](torch.from_numpy(embeddings.copy()))
    return MappingTest(name, sources.numpy(), embeddings)


@dataclass(frozen=True)
class _Pair:
    group: str
    source: str
    target: str
    earlier: Sequence[str]


def _pairs(file: Path, pairs: PairsConfig) -> Iterator[_Pair]:
    for name, texts in _groups(file, pairs).items():
        if pairs.ordered:
            for row in range(1, len(texts)):
                earlier = texts[max(0, row - 1 - TURNS) : row - 1]
                yield _Pair(name, texts[row - 1], texts[row], earlier)
        elif len(texts) > 1:
            for row, text in enumerate(texts):
                yield _Pair(name, texts[(row + 1) % len(texts)], text, ())


def _groups(file: Path, pairs: PairsConfig) -> dict[str, list[str]]:
    """The texts of each group in their order, groups in the order of the file."""
    names = [name for name in (pairs.group, pairs.order) if name]
    columns = pq.read_table(file, columns=[*names, "text"]).to_pydict()
    rows: dict[str, list[tuple[int, int]]] = {}
    places = columns[pairs.order] if pairs.order else [0] * len(columns["text"])
    for row, (group, place) in enumerate(zip(columns[names[0]], places, strict=True)):
        rows.setdefault(str(group), []).append((place, row))
    return {group: [columns["text"][row] for _, row in sorted(some)] for group, some in rows.items()}


def _texts(pairs: Sequence[_Pair]) -> PairTexts:
    return PairTexts(
        [pair.source for pair in pairs],
        [pair.target for pair in pairs],
        [list(pair.earlier) for pair in pairs],
    )
