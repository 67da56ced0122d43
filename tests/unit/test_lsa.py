"""LSA is a teacher that can be fitted, saved and loaded, and keeps its space apart from others'."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cellular.errors import CellularError
from cellular.lsa import LSAConfig, LSATeacher
from cellular.teachers import load_teacher
from jobs.cli import app

CONFIG = LSAConfig(dimension=32, words=300, parts=200)


@pytest.fixture(scope="module")
def teacher(topic_sentences: list[str]) -> LSATeacher:
    return LSATeacher.fit(topic_sentences, CONFIG)


@pytest.fixture
def folder(tmp_path: Path, teacher: LSATeacher) -> Path:
    teacher.save(tmp_path / "own", "# A card", {"texts": 700})
    return tmp_path / "own"


def test_a_saved_teacher_is_loaded_by_its_folder(
    teacher: LSATeacher, folder: Path, topic_sentences: list[str]
) -> None:
    loaded = load_teacher(f"lsa:{folder}")
    assert loaded.fingerprint == teacher.fingerprint
    assert loaded.encode(topic_sentences).tobytes() == teacher.encode(topic_sentences).tobytes()
    assert load_teacher(loaded.name).fingerprint == teacher.fingerprint
    assert (folder / "README.md").read_text() == "# A card"


def test_fitting_is_deterministic(teacher: LSATeacher, topic_sentences: list[str]) -> None:
    assert LSATeacher.fit(topic_sentences, CONFIG).fingerprint == teacher.fingerprint


def test_another_corpus_is_another_space(teacher: LSATeacher, topic_sentences: list[str]) -> None:
    assert LSATeacher.fit(topic_sentences[:-50], CONFIG).fingerprint != teacher.fingerprint


def test_rounding_hardly_moves_a_vector(topic_sentences: list[str]) -> None:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = LSATeacher.fit(topic_sentences, CONFIG.model_copy(update={"parts": 0}))
    counts = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]", max_features=300, sublinear_tf=True)
    exact = TruncatedSVD(32, n_iter=4, random_state=0).fit_transform(counts.fit_transform(topic_sentences))
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    assert np.abs(np.einsum("nd,nd->n", exact, words.encode(topic_sentences))).min() > 0.999


def test_a_text_of_unknown_terms_has_a_direction(teacher: LSATeacher) -> None:
    (vector,) = teacher.encode(["東京"])
    assert np.flatnonzero(vector).tolist() == [0]


def test_a_word_that_was_never_seen_is_near_its_relatives(teacher: LSATeacher) -> None:
    unseen, related, other = teacher.encode(["unassignable", "the assignment of names", "a loop ends"])
    assert unseen @ related > unseen @ other


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["a", "b"], "too few for 32 dimensions"), (["", " "], "cannot fit on these texts")],
)
def test_texts_that_do_not_suffice_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(CellularError, match=message):
        LSATeacher.fit(texts, CONFIG)


@pytest.mark.parametrize("content", ["[1]", '"x"', "[", json.dumps(["a"])])
def test_a_damaged_vocabulary_is_named(folder: Path, content: str) -> None:
    (folder / "vocabulary.json").write_text(content)
    with pytest.raises(CellularError, match="restore"):
        LSATeacher.load(folder)


def test_the_command_records_the_commit_that_it_is_told(tmp_path: Path, topic_sentences: list[str]) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(topic_sentences), encoding="utf-8")
    options = ["--target", str(tmp_path / "lsa"), "--dimension", "16", "--commit", "abc"]
    assert CliRunner().invoke(app, ["adapter", "fit-lsa", str(texts), *options]).exit_code == 0
    assert json.loads((tmp_path / "lsa" / "config.json").read_bytes())["training"]["commit"] == "abc"
