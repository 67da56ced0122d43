"""The test sets of an evaluation: texts that no decoder has seen, from a folder of train and test files.

A folder holds `NAME_train.parquet`, `NAME_valid.parquet` and `NAME_test.parquet` for each set, with a column
`text`. What is drawn at random is drawn with fixed seeds: the same folder gives the same texts.
"""

import os
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from cellular.bank import PhraseBank
from cellular.config import BuildConfig, CorpusConfig, PhraseRules, TeacherConfig
from cellular.decoders import default_bank_path
from cellular.embeddings import EmbeddingLoader
from cellular.errors import CellularError
from cellular.types import FloatArray
from pipelines import build_phrase_bank

SHORTEST, LONGEST = 3, 160  # characters
CONSTANT_SAMPLE = 2000  # training texts whose mean embedding stands for all
_SEED = 1

Split = Literal["valid", "test"]


@dataclass(frozen=True)
class HeldOut:
    """A test set: N texts and the teacher's embeddings of them, (N, D) float32 of unit length.

    Attributes:
        name: of the set, and of the damage where there is any.
        texts: what is to be said.
        embeddings: the teacher's.
        given: the same as decoders get them, perhaps damaged.
    """

    name: str
    texts: list[str]
    embeddings: FloatArray
    given: FloatArray


def data_folder(path: Path | None) -> Path:
    """The folder of data files: the one given, or what CELLULAR_DATA names.

    Raises:
        CellularError: neither names a folder that holds train files.
    """
    named = path or os.environ.get("CELLULAR_DATA")
    if not named:
        raise CellularError(
            "no data to evaluate on: pass --data FOLDER, or set CELLULAR_DATA; "
            "FOLDER holds NAME_train.parquet and NAME_test.parquet, each with a column `text`"
        )
    folder = Path(named).expanduser()
    if not any(folder.glob("*_train.parquet")):
        raise CellularError(f"{folder} holds no NAME_train.parquet: pass the folder that does as --data")
    return folder


def set_names(folder: Path, split: Split, chosen: Sequence[str] = ()) -> list[str]:
    """The chosen test sets in their order, or all that the folder has.

    Raises:
        CellularError: there is no such set.
    """
    suffix = f"_{split}"
    there = sorted(path.stem.removesuffix(suffix) for path in folder.glob(f"*{suffix}.parquet"))
    missing = [name for name in chosen if name not in there]
    if missing or not there:
        wanted, have = (missing or ["NAME"])[0], ", ".join(there) or "none"
        raise CellularError(f"no {wanted}{suffix}.parquet in {folder}; the sets there are: {have}")
    return list(chosen) or there


def training_counts(folder: Path) -> Counter[str]:
    """Every usable text of every train file, with how often it occurs."""
    return Counter(text for path in sorted(folder.glob("*_train.parquet")) for text in _texts(path))


def training_texts(file: Path) -> Iterator[str]:
    """Every text of a train file, of any length.

    Raises:
        CellularError: the file cannot be read.
    """
    return (text for text in _column(file) if isinstance(text, str))


def held_out_texts(
    file: Path, training: Collection[str], bank: PhraseBank | None = None, limit: int | None = None
) -> list[str]:
    """Unique texts of a file that neither the train files nor the bank hold: sorted, shuffled, cut.

    Raises:
        CellularError: none is left, or the file cannot be read.
    """
    texts = {text for text in _texts(file) if text not in training}
    if bank is not None:
        texts -= {phrase for id in range(len(bank)) if (phrase := bank.phrase(id)) in texts}
    if not texts:
        raise CellularError(f"no text of {file} can be used: each is in a train file or in the bank")
    chosen = sorted(texts)
    random.Random(_SEED).shuffle(chosen)
    return chosen[:limit]


def constant_sentence(training: Iterable[str], loader: EmbeddingLoader) -> str:
    """The one answer to everything: of a sample of training texts, the nearest to the sample's mean."""
    texts = sorted(training)
    sample = random.Random(_SEED).sample(texts, min(CONSTANT_SAMPLE, len(texts)))
    embeddings = loader.encode(sample)
    return sample[int((embeddings @ embeddings.mean(axis=0)).argmax())]


def training_bank(folder: Path, teacher: TeacherConfig) -> PhraseBank:
    """The bank whose phrases are the train files' texts as they are: built beside the default bank, once.

    Stopped at any point, the build goes on when this is called again.
    """
    config = BuildConfig(
        corpus=CorpusConfig(inputs=(str(folder / "*_train.parquet"),)),
        target=default_bank_path().with_name("training"),
        rules=PhraseRules(units=("record",), min_characters=SHORTEST, max_characters=LONGEST),
        teacher=teacher,
    )
    return PhraseBank.open(build_phrase_bank.run(config).path)


def _texts(path: Path) -> list[str]:
    """The texts of usable length of a file, in its order."""
    return [text for text in _column(path) if isinstance(text, str) and SHORTEST <= len(text) <= LONGEST]


def _column(path: Path) -> list[object]:
    try:
        texts: list[object] = pq.read_table(path, columns=["text"])["text"].to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise CellularError(f"cannot read the column `text` of {path}: {error}") from error
    return texts
