"""What a person asks a bank or a decoder for, as embeddings in its space."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cellular.bank import PhraseBank
from cellular.embedding_files import read_embeddings
from cellular.errors import CellularError
from cellular.teachers import Teacher, load_teacher
from cellular.types import FloatArray


def query_embeddings(
    dimension: int, teacher: Callable[[], Teacher], texts: Sequence[str], file: Path | None
) -> FloatArray:
    """Embed texts with a teacher, which is loaded for nothing else, or read embeddings from a file.

    Returns:
        (N, D) float32, every row of unit length.

    Raises:
        CellularError: both given or neither, a file that cannot be used, or the teacher has changed.
    """
    if bool(texts) == (file is not None):
        raise CellularError("give either texts or a file of embeddings")
    return teacher().encode(texts) if file is None else read_embeddings(file, dimension)


def open_lattice(folder_or_name: str, fingerprint: str) -> Callable[[FloatArray], FloatArray]:
    """A lattice: (N, D) embeddings of a teacher to (N, D) float32 of unit length.

    Raises:
        CellularError: there is no such lattice, or it reads another teacher's.
    """
    from cellular.lattice import load_lattice
    from cellular.lattice.inference import placed, process

    checkpoint = load_lattice(folder_or_name)
    checkpoint.check_teacher(fingerprint)
    return partial(process, placed(checkpoint.lattice))


def checked_teacher(name: str, check: Callable[[str], None]) -> Teacher:
    """The teacher of a name, once its fingerprint has passed a bank's or a decoder's check.

    Raises:
        CellularError: it has changed since, or cannot be loaded.
    """
    teacher = load_teacher(name)
    check(teacher.fingerprint)
    return teacher


def bank_teacher(bank: PhraseBank) -> Teacher:
    """The teacher that made a bank; errors as `checked_teacher`."""
    return checked_teacher(bank.manifest.teacher.name, bank.check_teacher)
