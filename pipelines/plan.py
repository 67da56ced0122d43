"""Everything that can be wrong is found here, before the first stage."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray

from cellular.bank.index import check_factory
from cellular.bank.manifest import SOURCES, Manifest, current_version, read_manifest, version_folder, versions
from cellular.config import BuildConfig, CorpusConfig, TeacherConfig
from cellular.documents import Unit, check_columns, split_units
from cellular.errors import CellularError
from cellular.files import InputFile, find_inputs
from cellular.teachers import load_teacher
from pipelines.stages import teacher_resources
from pipelines.workspace import Plan, read_plan

FORMAT = 1  # of the files in a build's folder
PIECE_BYTES = (1 << 20, 256 << 20)  # least and most; between them a corpus has about PIECES
PIECES = 1_024


def check_corpus(config: BuildConfig) -> list[InputFile]:
    """The input files.

    Raises:
        CellularError: an input can't be found or read, or lacks the text column.
    """
    files = find_inputs(config.corpus)
    check_columns(files, config.corpus)
    return files


def unfinished_plan(config: BuildConfig, files: Sequence[InputFile]) -> Plan | None:
    """The plan of the unfinished build in the target, if there is one.

    Raises:
        CellularError: it is another build than this one.
    """
    plan = read_plan(config.target)
    if plan is None or plan.build == fingerprint(config, files, plan.base):
        return plan
    raise CellularError(
        f"an unfinished build in {config.target} has other settings or inputs: "
        "repeat its command to finish it, or add --restart to discard it"
    )


def finished_version(config: BuildConfig, files: Sequence[InputFile]) -> str | None:
    """The current version, if this build made it: from scratch or, appending, on top of an earlier one."""
    current = current_version(config.target)
    if current is None:
        return None
    build = read_manifest(version_folder(config.target, current)).build
    bases = versions(config.target) if config.append else [None]
    return current if any(build == fingerprint(config, files, base) for base in bases) else None


def fingerprint(config: BuildConfig, files: Sequence[InputFile], base: str | None) -> str:
    """Names a build: equal for equal settings, inputs and base version. Resources don't count."""
    settings = config.model_dump(mode="json", exclude={"target", "resources"})
    settings["corpus"].pop("inputs")
    settings["teacher"] = {name: settings["teacher"][name] for name in ("name", "precision")}
    content = [FORMAT, settings, base, [asdict(file) for file in files]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def make_plan(config: BuildConfig, files: Sequence[InputFile]) -> Plan:
    """Plan a new build; needs a cluster, on which the teacher is loaded once.

    Raises:
        CellularError: the teacher can't be loaded, the index can't be made, or the bank can't be appended to.
    """
    base, manifest = base_version(config.target) if config.append else (None, None)
    teacher, dimension = describe_teacher(config)
    if config.index.factory != "auto":
        check_factory(config.index.factory, dimension)
    sources: list[str] = []
    if base and manifest:
        _check_base(config, manifest, teacher)
        sources = pq.read_table(version_folder(config.target, base) / SOURCES)["uri"].to_pylist()
    return Plan(
        build=fingerprint(config, files, base),
        teacher=teacher,
        dimension=dimension,
        base=base,
        known=tuple(versions(config.target)),
        sources=(*sources, *(file.uri for file in files)),
        pieces=tuple(_pieces(config.corpus, files, len(sources))),
    )


def _pieces(
    corpus: CorpusConfig, files: Sequence[InputFile], first_source: int
) -> Iterator[tuple[dict[str, Any], ...]]:
    """The units of the corpus in groups; their sources are numbered from `first_source`."""
    size = sum(file.size for file in files) // PIECES
    piece_bytes = min(max(size, PIECE_BYTES[0]), PIECE_BYTES[1])
    for piece in _group(split_units(files, corpus, piece_bytes), files, piece_bytes):
        yield tuple(asdict(replace(unit, source=first_source + unit.source)) for unit in piece)


def _group(units: Sequence[Unit], files: Sequence[InputFile], piece_bytes: int) -> Iterator[list[Unit]]:
    """Units in order, small files together, so that a million of them don't make a million pieces."""
    piece: list[Unit] = []
    held = 0
    for unit in units:
        size = min(files[unit.source].size, piece_bytes)
        if piece and held + size > piece_bytes:
            yield piece
            piece, held = [], 0
        piece.append(unit)
        held += size
    yield piece


def base_version(target: Path) -> tuple[str, Manifest]:
    """The version that an append starts from, and its manifest.

    Raises:
        CellularError: there is none.
    """
    if (version := current_version(target)) is None:
        raise CellularError(f"there is no bank in {target} to append to: build one first")
    return version, read_manifest(version_folder(target, version))


def _check_base(config: BuildConfig, base: Manifest, teacher: str) -> None:
    """A bank holds vectors of one teacher, of one type, of phrases made by one set of rules."""
    pairs = {
        "teacher": (base.teacher.fingerprint, teacher),
        "embedding dtype": (base.embedding_dtype, config.embedding_dtype),
        "rules": (base.rules, config.rules),
    }
    for what, (old, new) in pairs.items():
        if old not in (None, new):
            raise CellularError(f"cannot append with another {what}: the bank has {old}, this build {new}")


def describe_teacher(config: BuildConfig) -> tuple[str, int]:
    """Fingerprint and dimension, from where the embedding will run: the driver may lack the model."""
    taken = teacher_resources(config.resources, config.teacher)
    describe = ray.remote(_load_and_describe).options(**taken)
    described: tuple[str, int] = ray.get(describe.remote(config.teacher))
    return described


def _load_and_describe(config: TeacherConfig) -> tuple[str, int]:
    teacher = load_teacher(config)
    return teacher.fingerprint, teacher.dimension


def check_writable(target: Path) -> None:
    """Raise a CellularError unless files can be made in the target, which is created."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CellularError(f"cannot write to {target}: {os.strerror(error.errno or 0)}") from None
    if not os.access(target, os.W_OK | os.X_OK):
        raise CellularError(f"cannot write to {target}: no permission")
