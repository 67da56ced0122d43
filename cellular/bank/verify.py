"""Verification of a bank: is it whole, and does its index find what exact search finds?"""

from pathlib import Path

import numpy as np

from cellular.bank.calibration import exclude_self, recall, sample_rows
from cellular.bank.index import holds_each_once, open_index
from cellular.bank.manifest import (
    INDEX,
    Manifest,
    check_sum,
    current_version,
    read_manifest,
    version_folder,
)
from cellular.bank.phrase_bank import PhraseBank
from cellular.config import Settings
from cellular.errors import CellularError

BLOCK_ROWS = 65536


class VerifyReport(Settings):
    """What `verify_bank` found. Recall counts the hits at the default effort; None: not measured."""

    path: Path
    version: str | None = None
    phrases: int = 0
    index: str = ""
    effort: int | None = None
    sample: int = 0
    recall_at_1: float | None = None
    recall_at_10: float | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_bank(path: Path | str, sample: int = 1000, *, version: str | None = None) -> VerifyReport:
    """Check every file's checksum, the counts, the embeddings' lengths, the ids, and measure recall.

    Damage is reported, not raised.

    Args:
        path: the bank's folder.
        sample: stored vectors to search for, each without itself among the hits.
        version: a version's name; None: the current one.
    """
    path = Path(path)
    report = VerifyReport(path=path, version=version)
    try:
        version = version or current_version(path)
        if version is None:
            raise CellularError(f"no phrase bank in {path}: make one with `cellular bank build`")
        manifest = read_manifest(version_folder(path, version))
        report = report.model_copy(update={"version": version, "phrases": manifest.phrases})
        if problems := _file_problems(version_folder(path, version), manifest):
            return report.model_copy(update={"problems": tuple(problems)})
        bank = PhraseBank.open(path, version=version)
    except CellularError as error:
        return report.model_copy(update={"problems": (str(error),)})
    index = manifest.index
    report = report.model_copy(update={"index": index.factory, "effort": index.effort})
    if problems := _content_problems(bank):
        return report.model_copy(update={"problems": tuple(problems)})
    return report.model_copy(update=_measure_recall(bank, sample))


def _file_problems(folder: Path, manifest: Manifest) -> list[str]:
    problems = []
    for name in manifest.files:
        try:
            check_sum(folder, manifest, name)
        except (CellularError, OSError) as error:
            problems.append(str(error))
    return problems


def _content_problems(bank: PhraseBank) -> list[str]:
    problems = []
    counts = bank.count_column()
    if counts.min() < 1:
        problems.append("a phrase has count 0")
    if (total := int(counts.sum(dtype=np.int64))) != bank.manifest.occurrences:
        problems.append(f"counts add up to {total}, the manifest says {bank.manifest.occurrences}")
    if (row := _first_not_unit(bank)) is not None:
        problems.append(f"embedding {row} is not of unit length")
    folder = version_folder(bank.path, bank.version)
    if bank.manifest.index.effort is not None and not holds_each_once(open_index(folder / INDEX), len(bank)):
        problems.append("the index does not hold every phrase exactly once")
    return problems


def _first_not_unit(bank: PhraseBank) -> int | None:
    tolerance = 1e-3 if bank.matrix.dtype == np.float16 else 1e-4
    for start in range(0, len(bank), BLOCK_ROWS):
        lengths = np.linalg.norm(bank.matrix[start : start + BLOCK_ROWS].astype(np.float32), axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= tolerance))  # NaN is wrong too
        if wrong.size:
            return start + int(wrong[0])
    return None


def _measure_recall(bank: PhraseBank, sample: int) -> dict[str, float | int]:
    own = sample_rows(len(bank), sample, seed=3)
    k = min(10, len(bank) - 1)
    queries = bank.embeddings(own)
    exact, _ = exclude_self(*bank.exact_search(queries, k + 1), own, k)
    found, _ = exclude_self(*bank.search(queries, k + 1), own, k)
    return {
        "sample": len(own),
        "recall_at_1": recall(found[:, :1], exact[:, :1]),
        "recall_at_10": recall(found, exact),
    }
