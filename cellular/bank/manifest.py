"""The manifest of a phrase bank, and its folder: versions side by side, of which one is current.

TARGET/CURRENT                  names the current version; replaced in one step
TARGET/versions/v000001/        manifest.json and the files that it lists; never changed once published
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import AwareDatetime, Field, ValidationError

from cellular import __version__
from cellular.config import PhraseRules, Settings
from cellular.errors import CellularError
from cellular.files import sha256_file, sync, write_atomically

FORMAT: Final = 1
MANIFEST = "manifest.json"
PHRASES = "phrases.arrow"
EMBEDDINGS = "embeddings.arrow"
SOURCES = "sources.parquet"
INDEX = "index.faiss"
LISTS = "index.ivfdata"  # inverted lists of an index that was merged on disk
_VERSION = re.compile(r"v\d{6,}")


class FileEntry(Settings):
    """What a file must be."""

    bytes: int
    sha256: str


class TeacherEntry(Settings):
    """The embedding space of a bank."""

    name: str
    fingerprint: str


class IndexEntry(Settings):
    """How a bank is searched, and how well: recall is recall@10 against exact search, self excluded."""

    factory: str = "Flat"
    effort: int | None = Field(None, description="default nprobe or efSearch; None: the search is exact")
    candidates: int | None = Field(None, description="hits that are re-ranked where 10 are wanted")
    recall: float = 1.0
    warning: str | None = None


class Manifest(Settings):
    """All that is to know of one version of a bank without opening its files."""

    format: Literal[1] = FORMAT
    teacher: TeacherEntry
    dimension: int
    phrases: int
    occurrences: int
    embedding_dtype: Literal["float16", "float32"]
    index: IndexEntry = IndexEntry()
    rules: PhraseRules | None = Field(None, description="None: the phrases were given as they are")
    build: str = Field("", description="fingerprint of the settings and the corpus that made the bank")
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    cellular: str = Field(__version__, description="release that made the bank")
    files: dict[str, FileEntry] = Field(default_factory=dict)


def describe_file(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    return FileEntry(bytes=path.stat().st_size, sha256=sha256_file(path))


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Describe every file of a finished version and write its manifest, the last file to appear."""
    files = {path.name: describe_file(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    sealed = manifest.model_copy(update={"files": files})
    write_atomically(folder / MANIFEST, f"{sealed.model_dump_json(indent=2)}\n".encode())
    return sealed


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a version's folder.

    Raises:
        CellularError: none there, unreadable, or of a format that this release does not know.
    """
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_text("utf-8"))
        found = fields["format"]
        if found != FORMAT:
            raise CellularError(
                f"{path} has format {found}, this release reads format {FORMAT}: "
                "use the cellular release that wrote it, or build the bank again"
            )
        return Manifest.model_validate(fields)
    except FileNotFoundError:
        raise CellularError(f"no manifest in {folder}: it is not a version of a phrase bank") from None
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise damaged(path, "is not a manifest") from error


def damaged(path: Path, what: str) -> CellularError:
    """The error for a broken file: names it, and the command that tells more."""
    target = next((folder.parent for folder in path.parents if folder.name == "versions"), path.parent)
    return CellularError(f"{path} {what}: run `cellular bank verify {target}`, then restore or rebuild it")


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Compare each file's size with the manifest's; cheap, so done on every open and publish."""
    for name, entry in manifest.files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        if size != entry.bytes:
            raise damaged(path, f"has {size} bytes instead of {entry.bytes}")


def check_sum(folder: Path, manifest: Manifest, name: str) -> None:
    """Compare one file's SHA-256 with the manifest's."""
    path = folder / name
    if not path.is_file() or describe_file(path) != manifest.files[name]:
        raise damaged(path, "is missing or does not match its checksum")


def version_folder(target: Path, version: str) -> Path:
    """Where a version lies."""
    return target / "versions" / version


def versions(target: Path) -> list[str]:
    """The published versions, oldest first."""
    folder = target / "versions"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((name for name in names if _VERSION.fullmatch(name)), key=lambda name: int(name[1:]))


def current_version(target: Path) -> str | None:
    """The name of the current version; None where nothing was published yet."""
    try:
        name = (target / "CURRENT").read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        name = ""
    if not _VERSION.fullmatch(name):
        raise damaged(target / "CURRENT", "does not name a version")
    return name


def publish(target: Path, staged: Path) -> str:
    """Turn a sealed folder, on the same file system as the target, into the current version.

    Readers see the version before or the new one, whole, whenever the process dies.

    Returns:
        The new version's name.

    Raises:
        CellularError: the folder is not sealed or a listed file is missing or short.
    """
    check_sizes(staged, read_manifest(staged))
    for path in staged.iterdir():
        sync(path)
    sync(staged)
    (target / "versions").mkdir(parents=True, exist_ok=True)
    last = max((int(name[1:]) for name in versions(target)), default=0)
    version = f"v{last + 1:06d}"
    staged.rename(version_folder(target, version))
    sync(target / "versions")
    set_current(target, version)
    return version


def set_current(target: Path, version: str) -> None:
    """Make a published version the one that the next open finds."""
    read_manifest(version_folder(target, version))
    write_atomically(target / "CURRENT", f"{version}\n".encode())
