"""From a corpus to a phrase bank: segment, deduplicate, embed, index, publish."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from pydantic import Field

from actors import indexer, publisher
from actors.segmenter import Tally, chunk_path, rejects_path
from cellular.bank.index import choose_factory, merges, training_rows
from cellular.bank.manifest import Manifest, TeacherEntry, read_manifest, version_folder
from cellular.config import BuildConfig, Settings
from cellular.errors import CellularError
from pipelines.cluster import connected, plain_errors
from pipelines.plan import check_corpus, check_writable, finished_version, make_plan, unfinished_plan
from pipelines.progress import Row, Track, show
from pipelines.stages import Build, Stage, count_phrases, run_stage
from pipelines.workspace import discard_build, locked, write_plan


class BuildReport(Settings):
    """What a build did."""

    path: Path
    version: str
    phrases: int
    occurrences: int
    records: int = 0
    rejects: dict[str, int] = Field(default_factory=dict)  # rows by reason
    dropped: dict[str, int] = Field(default_factory=dict)  # occurrences that were left out, by rule
    embedded: int = 0  # phrases that the teacher embedded in this run
    reused: int = 0  # phrases whose embeddings the bank already had
    resumed: int = 0  # phrases that an earlier, interrupted run had embedded
    seconds: dict[str, float] = Field(default_factory=dict)  # by stage
    up_to_date: bool = False  # nothing was to be done


def run(config: BuildConfig, *, restart: bool = False, track: Track = show) -> BuildReport:
    """Build a phrase bank, or go on with the build that was interrupted.

    Args:
        config: what to build.
        restart: discard an unfinished build in the target, and build anew even if the bank is up to date.
        track: shows the progress.

    Raises:
        CellularError: something is wrong with the input, the settings or the target; nothing was embedded.
    """
    config = config.model_copy(update={"target": config.target.expanduser().absolute()})
    check_writable(config.target)
    files = check_corpus(config)
    with locked(config.target):
        plan = None if restart else unfinished_plan(config, files)
        if plan is None and not restart and (version := finished_version(config, files)):
            return _report(config, version, up_to_date=True)
        with connected(), plain_errors():
            if plan is None:
                discard_build(config.target)
                plan = make_plan(config, files)
                write_plan(config.target, plan)
            report = _Run(Build(config, plan), track).run()
        discard_build(config.target)
    return report


def _report(config: BuildConfig, version: str, **fields: Any) -> BuildReport:
    bank = read_manifest(version_folder(config.target, version))
    return BuildReport(
        path=config.target, version=version, phrases=bank.phrases, occurrences=bank.occurrences, **fields
    )


@dataclass(frozen=True)
class Shards:
    """The shards that hold phrases, in the order of their ids."""

    numbers: list[int]
    rows: list[int]


class _Run:
    """One run of a build: the stages in order. Only counts pass through here."""

    def __init__(self, build: Build, track: Track) -> None:
        self._build = build
        self._track = track
        self._seconds: dict[str, float] = {}

    def run(self) -> BuildReport:
        tally, chunks = self._segment()
        shards = self._deduplicate(chunks, tally.rows)
        factory = self._choose_factory(sum(shards.rows))
        embedded = self._embed(shards)
        version = self._publish(shards, factory)
        return _report(
            self._build.config,
            version,
            records=tally.records,
            rejects=dict(tally.rejects),
            dropped=dict(tally.dropped),
            **embedded,
            seconds=self._seconds,
        )

    def _stage(self, stage: Stage) -> list[Row]:
        with self._timed(stage.name):
            return list(run_stage(stage, self._track))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] = round(time.perf_counter() - start, 2)

    def _segment(self) -> tuple[Tally, list[str]]:
        """The tally of all pieces, and their chunks."""
        stages = [self._build.segment()]
        if self._build.base:
            stages.append(self._build.segment_base(self._build.base))
        total, chunks = Tally(), []
        for stage in stages:
            self._stage(stage)
            for output in (Path(item["output"]) for item in stage.items):
                tally = Tally.read(output)
                total += tally
                chunks += [str(chunk_path(output, number)) for number in range(tally.chunks)]
        return total, chunks

    def _deduplicate(self, chunks: list[str], rows: int) -> Shards:
        stage = self._build.deduplicate(chunks, rows) if chunks else None
        if stage:
            self._stage(stage)
        counts = [count_phrases(Path(item["output"])) for item in stage.items] if stage else []
        filled = [number for number, count in enumerate(counts) if count]
        return Shards(filled, [counts[number] for number in filled])

    def _choose_factory(self, rows: int) -> str:
        """The index for so many phrases; what is wrong with their number is said before any is embedded."""
        try:
            if not rows:
                raise CellularError("no phrase is left: give more text, or loosen the rules for phrases")
            return choose_factory(self._build.config.index, rows, self._build.plan.dimension)
        except CellularError:
            discard_build(self._build.config.target)  # it can't be finished: the next may have other settings
            raise

    def _embed(self, shards: Shards) -> dict[str, int]:
        rows = self._stage(self._build.embed(shards.numbers))
        phrases, embedded = (sum(row[name] for row in rows) for name in ("phrases", "embedded"))
        return {"embedded": embedded, "reused": phrases - embedded, "resumed": sum(shards.rows) - phrases}

    def _publish(self, shards: Shards, factory: str) -> str:
        config, plan, space = self._build.config, self._build.plan, self._build.space
        rows = sum(shards.rows)
        stage = self._build.index(shards.numbers, shards.rows) if merges(factory) else None
        embeddings = [space.embeddings(number) for number in shards.numbers]
        if stage:
            if not space.trained_index.exists():
                sample = training_rows(factory, rows, config.index)
                self._remote("train", indexer.train, embeddings, rows, sample, factory, space.trained_index)
            self._stage(stage)
        parts = publisher.Parts(
            phrases=[space.phrases(number) for number in shards.numbers],
            embeddings=embeddings,
            trained_index=space.trained_index if stage else None,
            index=[Path(item["output"]) for item in stage.items] if stage else [],
            rejects=[rejects_path(space.piece(number)) for number in range(len(plan.pieces))],
            sources=plan.sources,
        )
        manifest = Manifest(
            teacher=TeacherEntry(name=config.teacher.name, fingerprint=plan.teacher),
            dimension=plan.dimension,
            phrases=rows,
            occurrences=0,
            embedding_dtype=config.embedding_dtype,
            rules=config.rules,
            build=plan.build,
        )
        arguments = (config.target, parts, manifest, config.index, factory, plan.known)
        version: str = self._remote("publish", publisher.publish_bank, *arguments)
        return version

    def _remote(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Run on a worker what needs more memory than the driver should take."""
        with self._timed(name):
            return ray.get(ray.remote(function).options(num_cpus=1).remote(*arguments))
