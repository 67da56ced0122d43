"""Stages of a build: lists of items, each with one output, run on Ray Data where the output is missing."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from actors.deduplicator import Deduplicator
from actors.embedder import ShardEmbedder
from actors.indexer import Indexer
from actors.segmenter import BankSegmenter, Segmenter
from cellular.bank.manifest import EMBEDDINGS, PHRASES, version_folder
from cellular.config import BuildConfig, ResourceConfig, TeacherConfig
from cellular.teachers import can_use_gpu
from pipelines.cluster import gpus_each, resources, room
from pipelines.progress import Row, Track
from pipelines.workspace import Plan, Workspace

SHARDS = 256  # a bank has about so many, between these sizes
SHARD_ROWS = (4_096, 65_536)
PART_ROWS = 131_072  # least rows of one part of the index
PARTS = 64


@dataclass(frozen=True)
class Stage:
    """Work on independent items.

    Args:
        name: what a person sees.
        work: turns an item into a row of counts, and writes the item's `output`.
        items: plain values, so that they travel as rows.
        options: of `Dataset.map`: who runs it, and with which resources.
        unit: what a row counts, for a person.
    """

    name: str
    work: Callable[[Row], Row] | type
    items: Sequence[Row]
    options: dict[str, Any]
    unit: str = "phrases"


def run_stage(stage: Stage, track: Track) -> Iterator[Row]:
    """Run the items whose output is missing, and yield their rows as they come."""
    missing = [item for item in stage.items if not Path(item["output"]).exists()]
    if missing:
        # A block an item: what a lost worker loses is one item.
        items = ray.data.from_items(missing, override_num_blocks=len(missing))
        rows = items.map(stage.work, **stage.options).iter_rows()
        yield from track(rows, stage.name, len(stage.items), len(stage.items) - len(missing), stage.unit)


@dataclass(frozen=True)
class Build:
    """What every stage of a build derives its items from."""

    config: BuildConfig
    plan: Plan

    @property
    def space(self) -> Workspace:
        """The build's files."""
        return Workspace(self.config.target, self.plan.build)

    @property
    def base(self) -> Path | None:
        """Folder of the version that is appended to."""
        return version_folder(self.config.target, self.plan.base) if self.plan.base else None

    @property
    def _tasks(self) -> dict[str, Any]:
        """How stages without a teacher run: as tasks, for which processes are at hand."""
        resources = self.config.resources
        return {"compute": TaskPoolStrategy(resources.tasks), "num_cpus": resources.task_cpus}

    def segment(self) -> Stage:
        """Pieces of the corpus become chunks of phrases."""
        items = [
            {"units": json.dumps(piece), "output": str(self.space.piece(number))}
            for number, piece in enumerate(self.plan.pieces)
        ]
        return Stage("segment", Segmenter(self.config.corpus, self.config.rules), items, self._tasks)

    def segment_base(self, base: Path) -> Stage:
        """Record batches of the version that is appended to become chunks of phrases."""
        rows = _batch_rows(base / PHRASES)
        items = [
            {"batch": number, "first_id": first_id, "output": str(self.space.base_piece(number))}
            for number, first_id in enumerate(accumulate(rows[:-1], initial=0))
        ]
        return Stage("read bank", BankSegmenter(base / PHRASES), items, self._tasks)

    def deduplicate(self, chunks: Sequence[str], rows: int) -> Stage:
        """Ranges of the hash space become shards of distinct phrases; `rows` are in all chunks."""
        ranges = max(1, -(-rows // (self.config.shard_rows or default_shard_rows(rows))))
        items = [
            {"number": number, "ranges": ranges, "output": str(self.space.phrases(number))}
            for number in range(ranges)
        ]
        return Stage("deduplicate", Deduplicator(chunks, self.config.rules.min_count), items, self._tasks)

    def embed(self, shards: Sequence[int]) -> Stage:
        """Shards get their embeddings."""
        items = [
            {"phrases": str(self.space.phrases(shard)), "output": str(self.space.embeddings(shard))}
            for shard in shards
        ]
        arguments = {
            "teacher": self.config.teacher,
            "dtype": self.config.embedding_dtype,
            "base": self.base / EMBEDDINGS if self.base else None,
        }
        options = {
            "fn_constructor_kwargs": arguments,
            **teacher_pool(self.config.resources, self.config.teacher, len(shards)),
        }
        return Stage("embed", ShardEmbedder, items, options)

    def index(self, shards: Sequence[int], rows: Sequence[int]) -> Stage:
        """Groups of shards become parts of the index."""
        part_rows = max(PART_ROWS, sum(rows) // PARTS)
        first_ids = list(accumulate(rows[:-1], initial=0))
        numbers = [first_id // part_rows for first_id in first_ids]
        items = []
        for part, members in groupby(range(len(shards)), key=numbers.__getitem__):
            chosen = list(members)
            items.append(
                {
                    "embeddings": [str(self.space.embeddings(shards[i])) for i in chosen],
                    "first_ids": [first_ids[i] for i in chosen],
                    "output": str(self.space.index_part(part)),
                }
            )
        return Stage("index", Indexer(self.space.trained_index), items, self._tasks)


def pool(workers: int | None, each: dict[str, Any], items: int) -> dict[str, Any]:
    """Who runs a stage: so many workers, or as many as there is room for, and no more than items.

    `each` is what one takes, as `cluster.resources` says it.
    """
    size = max(1, min(workers or room(each["num_cpus"], each["num_gpus"]), items))
    return {"compute": ActorPoolStrategy(size=size), **each}


def teacher_pool(asked: ResourceConfig, teacher: TeacherConfig, items: int) -> dict[str, Any]:
    """Who runs a stage that embeds."""
    return pool(asked.embedders, teacher_resources(asked, teacher), items)


def teacher_resources(asked: ResourceConfig, teacher: TeacherConfig) -> dict[str, Any]:
    """What a worker that holds a teacher takes."""
    return resources(asked.embedder_cpus, gpus_each(asked.embedder_gpus, can_use_gpu(teacher)))


def default_shard_rows(rows: int) -> int:
    """Phrases in a shard: minutes of embedding at most, since a shard is what an interruption loses."""
    return min(max(rows // SHARDS, SHARD_ROWS[0]), SHARD_ROWS[1])


def _batch_rows(path: Path) -> list[int]:
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        return [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]


def count_phrases(path: Path) -> int:
    """Phrases in a shard."""
    return sum(_batch_rows(path))
