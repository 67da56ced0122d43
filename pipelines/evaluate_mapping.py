"""Evaluation of what makes embeddings of embeddings, beside baselines: `map` to what follows, `denoise`."""

import platform
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path

from cellular import __version__
from cellular.checkpoint_files import packaged_checkpoints
from cellular.config import MappingConfig
from cellular.embedding_objectives import similarity_ranks
from cellular.embeddings import EmbeddingLoader
from cellular.encoders import available_threads
from cellular.errors import CellularError
from cellular.metrics import Estimate, estimate
from cellular.types import FloatArray
from pipelines.evaluation_data import data_folder, held_out_texts, set_names, training_counts, training_texts
from pipelines.mappers import Mapper, checkpoint_mapper, identity, mean, ridge
from pipelines.mapping_data import (
    DAMAGES,
    SEED,
    MappingTest,
    damaged,
    embed_pairs,
    held_out_pairs,
    pairs_of,
    training_pairs,
)
from pipelines.mapping_report import MappingReport, MappingRow
from pipelines.progress import bar

BATCH = 64
_CACHE_BYTES = 8 << 30


def run(config: MappingConfig) -> MappingReport:
    """Let each mapper answer the tests, and see how near it comes to what is wanted.

    Raises:
        CellularError: no data, no such set or checkpoint, or a checkpoint of another teacher.
    """
    folder = data_folder(config.data)
    cache = config.cache or user_cache_path("cellular") / "embeddings"
    with EmbeddingLoader(config.teacher, cache, _CACHE_BYTES) as loader:
        score = _map if config.task == "map" else _denoise
        named = [checkpoint_mapper(name, loader.fingerprint) for name in config.checkpoints]
        rows, mappers = score(config, folder, loader, named)
    return MappingReport(
        created=datetime.now(UTC),
        version=__version__,
        machine=f"{platform.machine()}, {available_threads()} threads",
        task=config.task,
        split=config.split,
        teacher=loader.fingerprint,
        mappers={mapper.name: mapper.about for mapper in mappers},
        rows=rows,
    )


def _packaged(purpose: str, fingerprint: str) -> list[Mapper]:
    return [checkpoint_mapper(name, fingerprint) for name in packaged_checkpoints(f"lattice-{purpose}-")]


def _map(
    config: MappingConfig, folder: Path, loader: EmbeddingLoader, named: list[Mapper]
) -> tuple[list[MappingRow], list[Mapper]]:
    """A row for each set and mapper, and one more where the history is read."""
    rows: list[MappingRow] = []
    mappers: dict[str, Mapper] = {}
    seen = {text for file in sorted(folder.glob("*_train.parquet")) for text in training_texts(file)}
    for name in _sets_of_pairs(folder, config):
        file = folder / f"{name}_{config.split}.parquet"
        pairs = pairs_of(file)
        assert pairs is not None
        test = embed_pairs(name, held_out_pairs(file, pairs, seen, config.limit), loader)
        texts = training_pairs(folder / f"{name}_train.parquet", pairs, config.fitted)
        fitted = embed_pairs(name, texts, loader)
        alone = MappingTest(name, fitted.sources, fitted.targets)
        made = named or _packaged("reply" if pairs.order else "paraphrase", loader.fingerprint)
        whole = [identity(), mean(alone), ridge(alone), *made]
        rows += [_row(mapper, test, False) for mapper in whole]
        if pairs.order:
            rows += [_row(mapper, test, True) for mapper in [ridge(fitted), *made] if mapper.history]
        mappers |= {mapper.name: mapper for mapper in whole}
    return rows, list(mappers.values())


def _sets_of_pairs(folder: Path, config: MappingConfig) -> list[str]:
    names = set_names(folder, config.split, config.sets)
    fit = [name for name in names if pairs_of(folder / f"{name}_{config.split}.parquet")]
    if left := set(config.sets) - set(fit):
        raise CellularError(f"{sorted(left)[0]} has no columns that say which texts belong together")
    return fit


def _denoise(
    config: MappingConfig, folder: Path, loader: EmbeddingLoader, named: list[Mapper]
) -> tuple[list[MappingRow], list[Mapper]]:
    """A row for each damage and mapper, on as many texts of each set."""
    training = training_counts(folder)
    names = set_names(folder, config.split, config.sets)
    files = [folder / f"{name}_{config.split}.parquet" for name in names]
    share = -(-config.limit // len(files))
    texts = [text for file in files for text in held_out_texts(file, training, None, share)]
    embeddings = loader.encode(texts[: config.limit])
    sample = random.Random(SEED).sample(sorted(training), min(config.fitted, len(training)))
    fitted = _damaged_in_all_ways(loader.encode(sample))
    made = named or _packaged("denoise", loader.fingerprint)
    mappers = [identity(), mean(fitted), ridge(fitted), *made]
    tests = [damaged(name, embeddings) for name in DAMAGES]
    return [_row(mapper, test, False) for test in tests for mapper in mappers], mappers


def _damaged_in_all_ways(embeddings: FloatArray) -> MappingTest:
    """What baselines are fitted on: each embedding damaged in one way, in turn."""
    sources = embeddings.copy()
    for number, name in enumerate(DAMAGES):
        some = slice(number, None, len(DAMAGES))
        sources[some] = damaged(name, embeddings[some]).sources
    return MappingTest("all", sources, embeddings)


def _row(mapper: Mapper, test: MappingTest, history: bool) -> MappingRow:
    """What a mapper makes of a test, with or without what came before."""
    outputs, ms = [], []
    label = f"{test.name}: {mapper.name}{' with history' if history else ''}"
    for start in bar(range(0, len(test.sources), BATCH), label):
        some = slice(start, start + BATCH)
        began = time.perf_counter()
        earlier = test.earlier[some] if history and test.earlier is not None else None
        outputs.append(mapper.map(test.sources[some], earlier))
        ms.append((time.perf_counter() - began) * 1e3 / len(outputs[-1]))
    return MappingRow(
        set=test.name,
        history=history,
        mapper=mapper.name,
        texts=len(test.sources),
        scores=mapping_scores(np.concatenate(outputs), test.targets),
        parameters=mapper.parameters,
        ms=float(np.median(ms)),
    )


def mapping_scores(outputs: FloatArray, targets: FloatArray) -> dict[str, Estimate]:
    """How near outputs come to their targets, each of which stands among all of them.

    Args:
        outputs: (R, E) float32, of any length.
        targets: (R, E) float32, of unit length.

    Returns:
        `r1` and `r10`, the shares whose target is the nearest or among the nearest ten; `mrr`, the mean of
        1 / place; `cosine` between output and target.
    """
    found = torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(outputs)), dim=1)
    wanted = torch.from_numpy(targets)
    ranks = similarity_ranks(found, wanted, torch.arange(len(wanted))).numpy()
    scores = {
        "r1": ranks < 1,
        "r10": ranks < 10,
        "mrr": 1 / (ranks + 1),
        "cosine": (found * wanted).sum(1).numpy(),
    }
    return {name: estimate(values.astype(np.float32)) for name, values in scores.items()}
