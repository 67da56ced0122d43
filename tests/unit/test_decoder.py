"""PhraseBankDecoder over small real banks of the hash teacher."""

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from cellular.bank import PhraseBank, create_bank
from cellular.config import DecodingConfig
from cellular.decoders import PhraseBankDecoder
from cellular.teachers import HashTeacher

TEACHER = HashTeacher()


def sentences(limit: int) -> list[str]:
    lines = (line.strip() for text in topics.values() for line in text.split(". "))
    return list(dict.fromkeys(" ".join(line.split()) for line in lines if 20 < len(line) < 200))[:limit]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> PhraseBank:
    path = tmp_path_factory.mktemp("bank")
    create_bank(path, sentences(1500), TEACHER)
    return PhraseBank.open(path)


def test_greedy_gives_back_a_phrase_of_the_bank(bank: PhraseBank) -> None:
    decoder = PhraseBankDecoder(DecodingConfig(assembly_method="greedy"))
    decoder.load_phrase_bank(bank, embedding_loader=TEACHER)
    phrase = bank.phrase(7)
    assert decoder.decode(TEACHER.encode([phrase])[0]) == phrase
