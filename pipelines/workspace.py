"""The folder in which a bank grows: its lock, its plan, and the names of the files of every stage."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock
from pydantic import ValidationError

from cellular.config import Settings
from cellular.errors import CellularError
from cellular.files import write_atomically

Left = TypeVar("Left", bound=Settings)

FOLDERS = ("segments", "phrases", "embeddings", "index")


class Plan(Settings):
    """What a build will do, fixed before its first stage; a resumed build follows it to the letter."""

    build: str  # fingerprint of the settings and the corpus
    teacher: str  # its fingerprint
    dimension: int
    base: str | None  # the version that is appended to
    known: tuple[str, ...]  # versions that were there before
    sources: tuple[str, ...]  # URIs
    pieces: tuple[tuple[dict[str, Any], ...], ...]  # units of the corpus, grouped to a useful size


@dataclass(frozen=True)
class Workspace:
    """Names the files of one build. They lie in a folder named after the plan, so that a worker which
    outlived a discarded build can't leave anything in the next one."""

    target: Path
    build: str

    @property
    def folder(self) -> Path:
        """Everything of this build."""
        return build_folder(self.target) / self.build

    def piece(self, number: int) -> Path:
        """Counts of a segmented piece; its chunks and rejects have the same stem."""
        return self.folder / "segments" / f"{number:06d}.json"

    def base_piece(self, number: int) -> Path:
        """The same of a record batch of the bank that is appended to."""
        return self.folder / "segments" / f"base-{number:06d}.json"

    def phrases(self, shard: int) -> Path:
        """A shard's distinct phrases."""
        return self.folder / "phrases" / f"{shard:06d}.arrow"

    def embeddings(self, shard: int) -> Path:
        """A shard's embeddings."""
        return self.folder / "embeddings" / f"{shard:06d}.arrow"

    @property
    def trained_index(self) -> Path:
        """The trained, empty index."""
        return self.folder / "index" / "trained.faiss"

    def index_part(self, number: int) -> Path:
        """The index of a group of shards."""
        return self.folder / "index" / f"{number:06d}.faiss"

    def create(self) -> None:
        """Make the folders; stages only write files."""
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)


def build_folder(target: Path) -> Path:
    """Where the work in progress on a bank lies; no reader of the bank looks there."""
    return target / ".build"


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the target for one build; the kernel frees the lock when the process dies.

    Raises:
        CellularError: another build holds it, or the target cannot be written.
    """
    folder = build_folder(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock", blocking=False)
        with lock:
            yield
    except filelock.Timeout:
        raise CellularError(f"another build is writing to {target}: wait for it or stop it") from None


def read_plan(target: Path) -> Plan | None:
    """The plan of the unfinished build, if there is one."""
    return read_left(Plan, build_folder(target) / "plan.json")


def read_left(kind: type[Left], path: Path) -> Left | None:
    """What an earlier run left in a file, if it left any.

    Raises:
        CellularError: another release left it.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise CellularError(f"{path} is from another release: add --restart to discard that build") from None


def write_plan(target: Path, plan: Plan) -> None:
    """Begin a build."""
    Workspace(target, plan.build).create()
    write_atomically(build_folder(target) / "plan.json", plan.model_dump_json().encode())


def discard_build(target: Path) -> None:
    """Remove all work in progress; the plan first, so that a half removed build is not resumed."""
    folder = build_folder(target)
    (folder / "plan.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
