"""What every decoder in DECODERS does with an embedding, whatever it makes of it."""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Protocol

import numpy as np
import pytest

from cellular import HybridConfig, HybridDecoder, create_ultra_compact_decoder
from cellular.bank import PhraseBank, create_bank
from cellular.decoders import DECODERS, PhraseBankDecoder
from cellular.teachers import HashTeacher
from cellular.types import FloatArray


@pytest.fixture(scope="module")
def topic_bank(tmp_path_factory: pytest.TempPathFactory, topic_sentences: list[str]) -> PhraseBank:
    """One whose embeddings RET reads too."""
    path = tmp_path_factory.mktemp("topics-384") / "bank"
    create_bank(path, topic_sentences[:200], HashTeacher(384))
    return PhraseBank.open(path)


class Decoder(Protocol):
    def decode(self, embedding: FloatArray) -> str: ...


def phrase_bank_decoder(bank: PhraseBank) -> tuple[Decoder, int]:
    decoder = PhraseBankDecoder()
    decoder.load_phrase_bank(bank)
    return decoder, bank.dimension


def ret_decoder(_: PhraseBank) -> tuple[Decoder, int]:
    return create_ultra_compact_decoder(), 384


def hybrid_decoder(bank: PhraseBank) -> tuple[Decoder, int]:
    ret = create_ultra_compact_decoder(applications=2)
    effort = HybridConfig(draws=2, max_length=8, max_teacher_calls=2)
    return HybridDecoder(bank, ret, HashTeacher(384), effort), 384


MAKERS: dict[str, Callable[[PhraseBank], tuple[Decoder, int]]] = {
    "phrase_bank": phrase_bank_decoder,
    "ret": ret_decoder,
    "hybrid": hybrid_decoder,
}


def test_every_decoder_is_tested_here() -> None:
    assert MAKERS.keys() == DECODERS.keys()


@pytest.mark.parametrize("name", DECODERS)
class TestContract:
    def test_its_class_is_where_the_registry_says(self, name: str, topic_bank: PhraseBank) -> None:
        decoder, _ = MAKERS[name](topic_bank)
        assert type(decoder) is resolve_name(DECODERS[name])

    def test_an_embedding_gives_the_same_text_each_time(self, name: str, topic_bank: PhraseBank) -> None:
        decoder, dimension = MAKERS[name](topic_bank)
        embedding = np.random.default_rng(0).normal(size=dimension).astype(np.float32)
        before = embedding.copy()
        text = decoder.decode(embedding)
        assert isinstance(text, str) and decoder.decode(embedding) == text
        assert decoder.decode(embedding.astype(np.float64) * 40) == text
        assert np.array_equal(embedding, before)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 0])
    def test_invalid_values_are_refused(self, name: str, topic_bank: PhraseBank, value: float) -> None:
        decoder, dimension = MAKERS[name](topic_bank)
        with pytest.raises(ValueError, match="embedding"):
            decoder.decode(np.full(dimension, value, np.float32))

    def test_another_shape_or_dtype_is_refused(self, name: str, topic_bank: PhraseBank) -> None:
        decoder, dimension = MAKERS[name](topic_bank)
        for bad in (
            np.ones(dimension + 1, np.float32),
            np.ones((1, dimension), np.float32),
            np.ones(dimension, np.int64),
        ):
            with pytest.raises(ValueError, match="embedding"):
                decoder.decode(bad)
