"""What a person asks a bank for, as embeddings in the bank's space."""

from collections.abc import Sequence
from pathlib import Path

from cellular.bank import PhraseBank
from cellular.embedding_files import read_embeddings
from cellular.errors import CellularError
from cellular.teachers import load_teacher
from cellular.types import FloatArray


def query_embeddings(bank: PhraseBank, texts: Sequence[str], file: Path | None) -> FloatArray:
    """Embed texts with the bank's own teacher, or read embeddings from a file.

    Returns:
        (N, D) float32, every row of unit length.

    Raises:
        CellularError: both given or neither, a file that cannot be used, or the bank's teacher has changed.
    """
    if bool(texts) == (file is not None):
        raise CellularError("give either texts or a file of embeddings")
    if file is not None:
        return read_embeddings(file, bank.dimension)
    teacher = load_teacher(bank.manifest.teacher.name)
    bank.check_teacher(teacher.fingerprint)
    return teacher.encode(texts)
