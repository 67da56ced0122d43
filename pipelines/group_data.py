"""From files to groups of texts with their embeddings: read, sort, embed once, keep as Parquet."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ray.data import TaskPoolStrategy

from actors.grouper import GroupEmbedder, Grouper
from cellular.bank.manifest import TeacherEntry
from cellular.config import BuildConfig, ResourceConfig
from cellular.documents import check_columns
from cellular.errors import CellularError
from cellular.files import InputFile, find_inputs
from cellular.training.config import TrainingDataConfig
from cellular.training.lattice_config import PairsConfig
from pipelines.plan import check_writable, describe_teacher
from pipelines.progress import Track, show
from pipelines.stages import Stage, default_shard_rows, run_stage, teacher_pool
from pipelines.training_data import Accept, TrainingData, describe, find_or_make, vocabulary_of
from pipelines.workspace import build_folder

FORMAT = 1


def prepare_groups(
    config: TrainingDataConfig,
    pairs: PairsConfig,
    folder: Path,
    resources: ResourceConfig,
    *,
    restart: bool = False,
    accept: Accept,
    track: Track = show,
) -> TrainingData:
    """Prepare groups of texts in a folder, go on with it, or find it done. Texts of any length are kept.

    Args:
        config: which files, teacher and pieces; its limits of length are those of targets elsewhere.
        pairs: which texts belong together.
        folder: where, on a file system that every node sees.
        resources: who embeds; never changes the result.
        restart: replace other data in the folder.
        accept: raises if the teacher of this fingerprint and dimension will not do; asked before it embeds.
        track: shows the progress.

    Raises:
        CellularError: something is wrong with the files, their columns, the teacher or the folder.
    """
    check_writable(folder)
    files = _check_files(config, pairs)
    build = _fingerprint(config, pairs, files)
    make = _Making(config, pairs, folder, resources, files, build, accept, track)
    return find_or_make(folder, build, make.run, accept, restart=restart)


def _check_files(config: TrainingDataConfig, pairs: PairsConfig) -> list[InputFile]:
    files = find_inputs(config.corpus)
    if plain := [file.uri for file in files if file.format == "text"]:
        raise CellularError(f"{plain[0]} has no columns: pairs are read from Parquet, JSON lines or CSV")
    texts = [pairs.source, pairs.target] if pairs.source else [config.corpus.text_column]
    for name in texts:
        corpus = config.corpus.model_copy(update={"text_column": name})
        check_columns(files, corpus, [name for name in (pairs.group, pairs.order) if name])
    return files


def _fingerprint(config: TrainingDataConfig, pairs: PairsConfig, files: Sequence[InputFile]) -> str:
    settings = config.model_dump(mode="json", include={"held_out": True, "teacher": {"name", "precision"}})
    content = [
        FORMAT,
        settings,
        config.corpus.text_column,
        pairs.model_dump(),
        vocabulary_of(config).fingerprint,
        [asdict(file) for file in files],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Making:
    """One preparation; what an earlier attempt wrote is not written again."""

    config: TrainingDataConfig
    pairs: PairsConfig
    folder: Path
    resources: ResourceConfig
    files: Sequence[InputFile]
    build: str
    accept: Accept
    track: Track

    def run(self) -> TrainingData:
        """Group, then embed."""
        config = self.config
        build = BuildConfig(
            corpus=config.corpus, target=self.folder, teacher=config.teacher, resources=self.resources
        )
        fingerprint, dimension = describe_teacher(build)
        self.accept(fingerprint, dimension)
        stage = self._embedding(self._group())
        list(run_stage(stage, self.track))
        teacher = TeacherEntry(name=Path(config.teacher.name).name, fingerprint=fingerprint)
        pieces = vocabulary_of(config).fingerprint
        return describe(stage, self.folder, self.build, teacher, dimension, pieces)

    def _group(self) -> list[str]:
        """Files become chunks of texts in the order of their groups."""
        folder = build_folder(self.folder) / self.build
        folder.mkdir(parents=True, exist_ok=True)
        items = [
            {"uri": file.uri, "format": file.format, "output": str(folder / f"{number:06d}.parquet")}
            for number, file in enumerate(self.files)
        ]
        options = {"compute": TaskPoolStrategy(self.resources.tasks), "num_cpus": self.resources.task_cpus}
        stage = Stage("group", Grouper(self.config.corpus, self.pairs), items, options)
        list(run_stage(stage, self.track))
        return [item["output"] for item in items]

    def _embedding(self, chunks: Sequence[str]) -> Stage:
        """Ranges of groups become shards."""
        config = self.config
        rows = sum(pq.read_metadata(chunk).num_rows for chunk in chunks)
        if not rows:
            raise CellularError("no text is left: give files that hold some")
        ranges = -(-rows // (config.shard_rows or default_shard_rows(rows)))
        options = {
            "fn_constructor_kwargs": {
                "teacher": config.teacher,
                "vocabulary": config.vocabulary,
                "held_out": config.held_out,
                "chunks": chunks,
            },
            **teacher_pool(self.resources, config.teacher, ranges),
        }
        return Stage(
            "embed", GroupEmbedder, [self._item(number, ranges) for number in range(ranges)], options
        )

    def _item(self, number: int, ranges: int) -> dict[str, Any]:
        item: dict[str, Any] = {"number": number, "ranges": ranges}
        for key, name in (("output", "train"), ("held_out", "held_out")):
            folder = self.folder / self.build / name
            folder.mkdir(parents=True, exist_ok=True)
            item[key] = str(folder / f"{number:06d}.parquet")
        return item
