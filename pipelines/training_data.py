"""From raw text to training data: read, make unique, embed once, keep as Parquet. Interrupted, it goes on."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import ValidationError

from actors.segmenter import Tally, chunk_path
from actors.text_embedder import TextEmbedder
from cellular.bank.manifest import TeacherEntry
from cellular.config import BuildConfig, PhraseRules, ResourceConfig, Settings
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.files import InputFile, write_atomically
from cellular.training.config import TrainingDataConfig
from pipelines.cluster import connected, plain_errors
from pipelines.plan import check_corpus, check_writable, fingerprint, make_plan, unfinished_plan
from pipelines.progress import Track, show
from pipelines.stages import Build, Stage, count_phrases, run_stage, teacher_pool
from pipelines.workspace import Plan, discard_build, locked, write_plan

FORMAT = 1
MANIFEST = "manifest.json"
Accept = Callable[[str, int], None]  # raises if a teacher of this fingerprint and dimension will not do


class TrainingData(Settings):
    """The manifest of prepared data; paths are relative to its folder."""

    format: int = FORMAT
    build: str  # fingerprint of the settings and the corpus
    teacher: TeacherEntry
    dimension: int
    vocabulary: str  # fingerprint
    rows: int
    held_out_rows: int
    shards: tuple[str, ...]
    held_out: tuple[str, ...]


def prepare(
    config: TrainingDataConfig,
    folder: Path,
    resources: ResourceConfig | None = None,
    *,
    restart: bool = False,
    accept: Accept = lambda fingerprint, dimension: None,
    track: Track = show,
) -> TrainingData:
    """Prepare training data in a folder, go on with it, or find it done.

    Each text is there once: whole records, white space folded, within the limits of length.

    Args:
        config: what to prepare.
        folder: where, on a file system that every node sees.
        resources: who embeds; never changes the result.
        restart: replace other data in the folder.
        accept: raises if the teacher of this fingerprint and dimension will not do; asked before it embeds.
        track: shows the progress.

    Raises:
        CellularError: something is wrong with the input, the teacher or the folder.
    """
    build_config = _build_config(config, folder, resources or ResourceConfig())
    check_writable(folder)
    files = check_corpus(build_config)
    build = _fingerprint(config, build_config, files)
    return find_or_make(
        folder,
        build,
        lambda: _prepare(config, build_config, files, build, accept, track),
        accept,
        restart=restart,
    )


def find_or_make(
    folder: Path, build: str, make: Callable[[], TrainingData], accept: Accept, *, restart: bool
) -> TrainingData:
    """The data of this fingerprint in a folder, made there unless they are.

    Raises:
        CellularError: the folder holds others, and may not be made anew; or what `make` and `accept` raise.
    """
    with locked(folder):
        there = read_training_data(folder) if (folder / MANIFEST).exists() else None
        if there and there.build == build:
            accept(there.teacher.fingerprint, there.dimension)
            return there
        if there and not restart:
            raise CellularError(f"{folder} holds other training data: name another folder, or add --restart")
        with connected(), plain_errors():
            data = make()
        write_atomically(folder / MANIFEST, data.model_dump_json(indent=1).encode())
        discard_build(folder)
        if there and there.build != build:
            shutil.rmtree(folder / there.build, ignore_errors=True)
    return data


def read_training_data(folder: Path) -> TrainingData:
    """The manifest of prepared data.

    Raises:
        CellularError: there is none, or it is of another release.
    """
    path = folder / MANIFEST
    try:
        return TrainingData.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CellularError(f"{folder} holds no training data: prepare it first") from None
    except ValidationError:
        raise CellularError(f"{path} is from another release: prepare the data again") from None


def _build_config(config: TrainingDataConfig, folder: Path, resources: ResourceConfig) -> BuildConfig:
    """Preparing is the first half of building a bank, whose phrases are whole records."""
    rules = PhraseRules(
        units=("record",),
        min_characters=config.min_characters,
        max_characters=config.max_characters,
        min_letter_fraction=0.0,
        max_repeat_fraction=1.0,
    )
    return BuildConfig(
        corpus=config.corpus,
        target=folder.expanduser().absolute(),
        rules=rules,
        teacher=config.teacher,
        shard_rows=config.shard_rows,
        resources=resources,
    )


def _fingerprint(config: TrainingDataConfig, build: BuildConfig, files: Sequence[InputFile]) -> str:
    content = [FORMAT, fingerprint(build, files, None), vocabulary_of(config).fingerprint, config.held_out]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def vocabulary_of(config: TrainingDataConfig) -> Vocabulary:
    """The pieces that texts are cut into."""
    return Vocabulary.from_file(config.vocabulary) if config.vocabulary else Vocabulary.load()


def _prepare(
    config: TrainingDataConfig,
    build_config: BuildConfig,
    files: Sequence[InputFile],
    build: str,
    accept: Accept,
    track: Track,
) -> TrainingData:
    target = build_config.target
    plan = unfinished_plan(build_config, files)
    if plan is None:
        discard_build(target)
        plan = make_plan(build_config, files)
        accept(plan.teacher, plan.dimension)
        write_plan(target, plan)
    stages = Build(build_config, plan)
    shards = _find_texts(stages, track)
    if not shards:
        discard_build(target)
        raise CellularError("no text is left: give more of it, or other limits of length")
    stage = _embed(config, stages, target / build, shards)
    list(run_stage(stage, track))
    return _describe(config, plan, build, target, stage)


def _find_texts(stages: Build, track: Track) -> list[int]:
    """Read and deduplicate; the shards that hold texts."""
    read = stages.segment()
    list(run_stage(read, track))
    outputs = [Path(item["output"]) for item in read.items]
    tallies = [Tally.read(output) for output in outputs]
    chunks = [
        str(chunk_path(output, number))
        for output, tally in zip(outputs, tallies, strict=True)
        for number in range(tally.chunks)
    ]
    if not chunks:
        return []
    unique = stages.deduplicate(chunks, sum(tally.rows for tally in tallies))
    list(run_stage(unique, track))
    counts = [count_phrases(Path(item["output"])) for item in unique.items]
    return [number for number, count in enumerate(counts) if count]


def _embed(config: TrainingDataConfig, stages: Build, folder: Path, shards: Sequence[int]) -> Stage:
    """Shards of texts become shards of training data."""
    names = {"output": "train", "held_out": "held_out"}
    for name in names.values():
        (folder / name).mkdir(parents=True, exist_ok=True)
    items = [
        {
            "phrases": str(stages.space.phrases(shard)),
            **{key: str(folder / name / f"{shard:06d}.parquet") for key, name in names.items()},
        }
        for shard in shards
    ]
    options = {
        "fn_constructor_kwargs": {
            "teacher": config.teacher,
            "vocabulary": config.vocabulary,
            "held_out": config.held_out,
        },
        **teacher_pool(stages.config.resources, config.teacher, len(shards)),
    }
    return Stage("embed", TextEmbedder, items, options)


def _describe(config: TrainingDataConfig, plan: Plan, build: str, target: Path, stage: Stage) -> TrainingData:
    teacher = TeacherEntry(name=Path(config.teacher.name).name, fingerprint=plan.teacher)
    return describe(stage, target, build, teacher, plan.dimension, vocabulary_of(config).fingerprint)


def describe(
    stage: Stage, target: Path, build: str, teacher: TeacherEntry, dimension: int, vocabulary: str
) -> TrainingData:
    """The manifest of what a stage wrote to the `output` and the `held_out` of its items."""
    files = {key: [Path(item[key]) for item in stage.items] for key in ("output", "held_out")}
    rows = {key: [pq.read_metadata(path).num_rows for path in paths] for key, paths in files.items()}
    filled = {
        key: [str(path.relative_to(target)) for path, count in zip(paths, rows[key], strict=True) if count]
        for key, paths in files.items()
    }
    return TrainingData(
        build=build,
        teacher=teacher,
        dimension=dimension,
        vocabulary=vocabulary,
        rows=sum(rows["output"]),
        held_out_rows=sum(rows["held_out"]),
        shards=tuple(filled["output"]),
        held_out=tuple(filled["held_out"]),
    )
