"""Evaluation: every decoder on every test set, beside the baselines, by one protocol."""

import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from platformdirs import user_cache_path

from cellular import __version__
from cellular.bank import PhraseBank, current_version
from cellular.config import EvaluationConfig
from cellular.embeddings import EmbeddingLoader
from cellular.encoders import available_threads
from cellular.errors import CellularError
from cellular.metrics import Estimate, corpus_scores, estimate, over_seeds, signatures, text_scores
from cellular.types import FloatArray
from pipelines.contenders import (
    BASELINES,
    Contender,
    CountingTeacher,
    Parts,
    behind,
    check_name,
    make_contender,
)
from pipelines.evaluation_data import (
    HeldOut,
    constant_sentence,
    data_folder,
    held_out_texts,
    set_names,
    training_bank,
    training_counts,
)
from pipelines.evaluation_report import Answers, Evaluation, EvaluationReport, Row, examples
from pipelines.mapping_data import check_damage, damaged
from pipelines.progress import bar

BATCH = 64
SINGLES = 32  # texts decoded one by one, for the time that one takes
_CACHE_BYTES = 8 << 30


def run(config: EvaluationConfig) -> Evaluation:
    """Decode the test sets with each decoder and each baseline, and score what comes back.

    Raises:
        CellularError: no data, no such decoder or set, or parts of different teachers.
    """
    config = _checked(config)
    cache = config.cache or user_cache_path("cellular") / "embeddings"
    with EmbeddingLoader(config.teacher, cache, _CACHE_BYTES) as loader:
        sets, parts = _prepare(config, loader)
        contenders = _contenders(config, parts)
        results = [
            _evaluate(contender, texts, config.seeds, parts.teacher, loader)
            for texts in sets
            for contender in contenders
        ]
    answers = [answer for _, some in results for answer in some]
    report = EvaluationReport(
        created=datetime.now(UTC),
        version=__version__,
        machine=f"{platform.machine()}, {available_threads()} threads",
        split=config.split,
        teacher=loader.fingerprint,
        signatures=signatures(),
        contenders={contender.name: contender.about for contender in contenders},
        rows=[row for row, _ in results],
        examples=[e for answer in answers if answer.seed == config.seeds[0] for e in examples(answer)],
        notes=_notes(contenders),
    )
    return Evaluation(report, answers)


def _checked(config: EvaluationConfig) -> EvaluationConfig:
    """A decoder that is a bank's folder stands for `phrase_bank`, and is the bank of the evaluation."""
    banks = {name: Path(name) for name in config.decoders if current_version(Path(name)) is not None}
    chosen = {*banks.values(), *([config.bank] if config.bank else [])}
    if len(chosen) > 1:
        raise CellularError("the bank decides which texts are tested: evaluate one bank at a time")
    decoders = tuple("phrase_bank" if name in banks else name for name in config.decoders)
    for name in decoders:
        check_name(name)
    for damage in config.damages:
        check_damage(damage)
    return config.model_copy(update={"decoders": decoders, "bank": next(iter(chosen), None)})


def _prepare(config: EvaluationConfig, loader: EmbeddingLoader) -> tuple[list[HeldOut], Parts]:
    """The test sets, and what contenders are made of."""
    folder = data_folder(config.data)
    names = set_names(folder, config.split, config.sets)
    bank = PhraseBank.open(config.bank) if config.bank else None
    training = training_counts(folder)
    if bank is None and config.training_bank:
        bank = training_bank(folder, config.teacher)
    sets: list[HeldOut] = []
    for name in names:
        file = folder / f"{name}_{config.split}.parquet"
        texts = held_out_texts(file, training, bank, config.limit)
        sets += _as_given(name, texts, loader.encode(texts), config.damages)
    constant = constant_sentence(training, loader)
    return sets, Parts(CountingTeacher(loader.teacher), constant, bank, config.checkpoint, config.engine)


def _as_given(
    name: str, texts: list[str], embeddings: FloatArray, damages: Sequence[str]
) -> Iterator[HeldOut]:
    """A set once for each damage."""
    for damage in damages:
        given = damaged(damage, embeddings).sources
        yield HeldOut(name if damage == "none" else f"{name}, {damage}", texts, embeddings, given)


def _contenders(config: EvaluationConfig, parts: Parts) -> list[Contender]:
    """The baselines that can be had, then what was asked for, each once, and each behind the lattices."""
    baselines = [name for name in BASELINES if parts.bank or name != "nearest"]
    contenders = [make_contender(name, parts) for name in dict.fromkeys([*baselines, *config.decoders])]
    asked = [one for one in contenders[len(baselines) :] if one.reads == "embeddings"]
    contenders += [behind(name, one, parts) for name in config.lattices for one in asked]
    texts = [one.name for one in contenders if one.reads == "texts"]
    if texts and set(config.damages) != {"none"}:
        raise CellularError(f"{texts[0]} reads texts: damage is for what decodes embeddings")
    for name, times in Counter(contender.name for contender in contenders).items():
        if times > 1:
            raise CellularError(f"{times} decoders are called {name}: give their folders different names")
    return contenders


def _notes(contenders: Sequence[Contender]) -> list[str]:
    if any(contender.name == "nearest" for contender in contenders):
        return []
    return ["no nearest phrase: pass --bank FOLDER, or --training-bank to build one of the train files"]


def _evaluate(
    contender: Contender,
    held_out: HeldOut,
    seeds: Sequence[int],
    teacher: CountingTeacher,
    loader: EmbeddingLoader,
) -> tuple[Row, list[Answers]]:
    """One decoder on one set: its row, and its answers for each seed that makes a difference."""
    seeds = seeds if contender.samples else seeds[:1]
    contender.decode(_given(contender, held_out)[:BATCH], seeds[0])  # warms up
    ms_alone = _decode(contender, held_out, seeds[0], 1, SINGLES).ms
    before = teacher.calls
    runs = [_decode(contender, held_out, seed, BATCH) for seed in seeds]
    calls = teacher.calls - before
    answers = [_scored(contender, held_out, *pair, loader) for pair in zip(seeds, runs, strict=True)]
    row = Row(
        set=held_out.name,
        decoder=contender.name,
        texts=len(held_out.texts),
        seeds=len(seeds),
        scores=_scores(answers),
        teacher_calls=calls / (len(held_out.texts) * len(seeds)),
        ms_batch_1=ms_alone,
        ms_batch_64=median(decoded.ms for decoded in runs),
    )
    return row, answers


@dataclass(frozen=True)
class _Run:
    """Texts, and the median over batches of the milliseconds a text."""

    outputs: list[str]
    ms: float


def _decode(contender: Contender, held_out: HeldOut, seed: int, size: int, limit: int | None = None) -> _Run:
    """Decode a set, or its first `limit` texts, in batches of one size."""
    rows = _given(contender, held_out)[:limit]
    outputs: list[str] = []
    ms: list[float] = []
    label = f"{held_out.name}: {contender.name}, {len(rows)} texts in batches of {size}"
    for start in bar(range(0, len(rows), size), label):
        batch = rows[start : start + size]
        began = time.perf_counter()
        outputs += contender.decode(batch, seed * len(rows) + start)
        ms.append((time.perf_counter() - began) * 1e3 / len(batch))
    return _Run(outputs, median(ms))


def _given(contender: Contender, held_out: HeldOut) -> FloatArray | list[str]:
    """What a contender reads of a set."""
    return held_out.texts if contender.reads == "texts" else held_out.given


def _scored(
    contender: Contender, held_out: HeldOut, seed: int, decoded: _Run, loader: EmbeddingLoader
) -> Answers:
    cosines = (loader.encode(decoded.outputs) * held_out.embeddings).sum(axis=1)
    scores = text_scores(decoded.outputs, held_out.texts, cosines)
    return Answers(held_out.name, contender.name, seed, held_out.texts, decoded.outputs, scores)


def _scores(answers: Sequence[Answers]) -> dict[str, Estimate]:
    """Every metric, over the seeds."""
    by_seed = [
        corpus_scores(answer.outputs, answer.inputs)
        | {name: estimate(values) for name, values in asdict(answer.scores).items()}
        for answer in answers
    ]
    return {name: over_seeds([scores[name] for scores in by_seed]) for name in by_seed[0]}
