"""Teachers in int8: by option only, labelled, and never mixed with fp32."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cellular import int8_graphs
from cellular.bank import PhraseBank, create_bank
from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.graphs import cache_folder
from cellular.int8_graphs import int8_fingerprint, known_agreement, neighbour_agreement
from cellular.teachers import Teacher, load_teacher

MODEL = "all-MiniLM-L6-v2"
TEXTS = ["Two dogs run on a beach.", "A boy throws a ball.", "The law was repealed in 1923.", "Where is it?"]


def test_name_and_precision_say_the_same() -> None:
    assert TeacherConfig(precision="int8") == TeacherConfig(name=f"{MODEL}:int8")
    assert TeacherConfig(precision="int8").model == MODEL
    assert TeacherConfig.model_validate(TeacherConfig(precision="int8").model_dump()).precision == "int8"
    assert TeacherConfig().name == TeacherConfig().model == MODEL


def test_contradicting_name_and_precision_are_refused() -> None:
    with pytest.raises(ValidationError, match="the precision of x:int8 is int8"):
        TeacherConfig(name="x:int8", precision="fp32")


def test_the_fingerprint_is_another_and_follows_the_model() -> None:
    names = {int8_fingerprint("m:00"), int8_fingerprint("m:01"), int8_fingerprint("n:00")}
    assert len(names) == 3
    assert all(name[1:].startswith("-int8:") for name in names)


def test_without_nncf_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(int8_graphs, "version", missing)
    with pytest.raises(CellularError, match=r"pip install 'cellular\[int8\]'$"):
        load_teacher(f"{MODEL}:int8")
    assert known_agreement("m:00") is None


def test_agreement_counts_equal_nearest_neighbours() -> None:
    angles = np.array([0.0, 0.1, 0.3, 2.0, 2.2])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert neighbour_agreement(vectors, vectors) == 1
    moved = vectors.copy()
    moved[2] = moved[3]  # 0 and 1 remain each other's nearest
    assert neighbour_agreement(moved, vectors) == 2 / 5


@pytest.mark.teacher
def test_a_processor_is_needed() -> None:
    with pytest.raises(CellularError, match="set device to cpu"):
        load_teacher(TeacherConfig(precision="int8", device="cuda"))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Quantises on its first use of a machine."""
    return load_teacher(TeacherConfig(precision="int8"))


@pytest.mark.teacher
class TestQuantised:
    def test_is_near_fp32_and_says_how_near(self, teacher: Teacher) -> None:
        expected = load_teacher(TeacherConfig(precision="fp32"))
        cosines = (teacher.encode(TEXTS) * expected.encode(TEXTS)).sum(axis=1)
        assert 0.97 < cosines.mean() < 0.9999
        agreement = known_agreement(expected.fingerprint)
        assert agreement is not None and 0.8 < agreement < 1
        assert getattr(teacher, "neighbour_agreement", None) == agreement
        assert getattr(expected, "neighbour_agreement", None) is None
        assert (cache_folder(teacher.fingerprint) / "graph.json").is_file()

    def test_its_bank_refuses_fp32_and_names_it(self, teacher: Teacher, tmp_path: Path) -> None:
        create_bank(tmp_path, TEXTS, teacher)
        bank = PhraseBank.open(tmp_path)
        assert load_teacher(bank.manifest.teacher.name).fingerprint == bank.fingerprint
        with pytest.raises(CellularError, match=f"use the teacher {MODEL}:int8"):
            bank.check_teacher(load_teacher(MODEL).fingerprint)
