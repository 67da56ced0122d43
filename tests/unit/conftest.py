"""What several unit test files share."""

from collections.abc import Iterator
from pydoc_data.topics import topics

import faiss
import pytest

from cellular.bank import PhraseBank, create_bank
from cellular.teachers import HashTeacher


@pytest.fixture(scope="session")
def topic_sentences() -> list[str]:
    lines = (" ".join(line.split()) for text in topics.values() for line in text.split(". "))
    return list(dict.fromkeys(line for line in lines if 20 < len(line) < 160))[:700]


@pytest.fixture(scope="session")
def topic_bank(tmp_path_factory: pytest.TempPathFactory, topic_sentences: list[str]) -> PhraseBank:
    path = tmp_path_factory.mktemp("topics") / "bank"
    counts = [1 + number % 7 for number in range(len(topic_sentences))]
    create_bank(path, topic_sentences, HashTeacher(), counts=counts)
    return PhraseBank.open(path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small trainings lose more to waiting for threads than they gain."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)
