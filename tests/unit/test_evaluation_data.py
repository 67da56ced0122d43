"""The protocol's test texts: what is in, what is out, and that it is the same each time."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.bank import PhraseBank, create_bank
from cellular.embeddings import EmbeddingLoader
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from pipelines.evaluation_data import (
    constant_sentence,
    data_folder,
    held_out_texts,
    set_names,
    training_counts,
)

TEST = [f"text number {number}" for number in range(50)]


def write(path: Path, texts: list[str | None]) -> None:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "one_train.parquet", ["seen in one", "twice", "twice", "ab", "x" * 161])
    write(tmp_path / "two_train.parquet", ["seen in two", "twice", None])
    write(
        tmp_path / "one_test.parquet", [*TEST, TEST[0], "seen in one", "seen in two", "ab", "x" * 161, None]
    )
    write(tmp_path / "one_valid.parquet", ["a valid text"])
    return tmp_path


def test_train_files_of_every_set_count(folder: Path) -> None:
    assert training_counts(folder) == Counter({"seen in one": 1, "seen in two": 1, "twice": 3})


def test_test_texts_are_unique_of_usable_length_and_in_no_train_file(folder: Path) -> None:
    texts = held_out_texts(folder / "one_test.parquet", training_counts(folder))
    assert sorted(texts) == sorted(TEST)


def test_the_banks_phrases_are_no_test_texts(folder: Path, tmp_path: Path) -> None:
    create_bank(tmp_path / "bank", [TEST[3], TEST[7], "something else"], HashTeacher())
    bank = PhraseBank.open(tmp_path / "bank")
    texts = held_out_texts(folder / "one_test.parquet", training_counts(folder), bank)
    assert sorted(texts) == sorted(set(TEST) - {TEST[3], TEST[7]})


def test_the_order_is_the_protocols_and_a_limit_takes_its_start(folder: Path) -> None:
    file, training = folder / "one_test.parquet", training_counts(folder)
    texts = held_out_texts(file, training)
    assert texts != sorted(texts)
    assert texts == held_out_texts(file, training)
    assert held_out_texts(file, training, limit=5) == texts[:5]


def test_nothing_left_is_an_error_that_names_the_file(folder: Path) -> None:
    with pytest.raises(CellularError, match=r"one_test\.parquet"):
        held_out_texts(folder / "one_test.parquet", [*TEST, "seen in one", "seen in two"])


def test_sets_are_those_there_or_those_chosen(folder: Path) -> None:
    write(folder / "two_test.parquet", TEST[:1])
    assert set_names(folder, "test") == ["one", "two"]
    assert set_names(folder, "test", ("two",)) == ["two"]
    with pytest.raises(CellularError, match=r"no two_valid\.parquet .* are: one"):
        set_names(folder, "valid", ("two",))


def test_the_data_folder_is_given_or_in_the_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CELLULAR_DATA", raising=False)
    with pytest.raises(CellularError, match="--data"):
        data_folder(None)
    with pytest.raises(CellularError, match="holds no NAME_train"):
        data_folder(tmp_path / "elsewhere")
    monkeypatch.setenv("CELLULAR_DATA", str(folder))
    assert data_folder(None) == folder


def test_a_file_without_texts_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "one_train.parquet")
    with pytest.raises(CellularError, match="column `text`"):
        training_counts(tmp_path)


def test_the_constant_sentence_is_the_most_central() -> None:
    texts = ["a dog on a beach", "a dog on a beach runs", "a dog on the beach", "completely other words here"]
    assert "a dog on" in constant_sentence(texts, EmbeddingLoader(HashTeacher()))
