"""The cache answers what it was asked, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from cellular.bank import PhraseBank, create_bank
from cellular.config import DecodingConfig
from cellular.decoders import PhraseBankDecoder, Session
from cellular.decoders.pattern_cache import PatternCache
from cellular.teachers import HashTeacher
from cellular.types import FloatArray

TEACHER = HashTeacher()


@pytest.fixture
def vector() -> FloatArray:
    value = np.random.default_rng(0).normal(size=384).astype(np.float32)
    return value / np.linalg.norm(value)


def sources(decoder: PhraseBankDecoder, row: FloatArray, session: Session | None = None) -> str:
    return decoder.decode_batch(row, session=session)[0].source


def test_every_part_of_the_key_counts(vector: FloatArray) -> None:
    cache = PatternCache[str](10)
    cache.put(cache.key(vector, b"setup", b"past"), vector, "answer")
    assert cache.get(cache.key(vector, b"setup", b"past"), vector) == "answer"
    for row, setup, past in [
        (vector, b"s", b"past"),
        (vector, b"setup", b"p"),
        (-vector, b"setup", b"past"),
    ]:
        assert cache.get(cache.key(row, setup, past), row) is None


def test_rounded_embeddings_hit(vector: FloatArray) -> None:
    rng = np.random.default_rng(1)
    cache = PatternCache[int](5000)
    rows = rng.normal(size=(1000, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for number, row in enumerate(rows):
        cache.put(cache.key(row, b"", b""), row, number)
    rounded = rows.astype(np.float16).astype(np.float32)
    found = [cache.get(cache.key(row, b"", b""), row) for row in rounded]
    assert sum(answer is not None for answer in found) > 900
    assert all(answer in (None, number) for number, answer in enumerate(found))


def test_neighbours_in_one_cell_do_not_share_an_answer(vector: FloatArray) -> None:
    cache = PatternCache[str](10)
    inside = np.full(384, 1 / np.sqrt(384), np.float32)  # .051, in the middle of a cell
    other = inside.copy()
    other[0] += 0.005
    assert cache.key(inside, b"", b"") == cache.key(other, b"", b"")
    cache.put(cache.key(inside, b"", b""), inside, "answer")
    assert cache.get(cache.key(other, b"", b""), other) is None


def test_the_least_recently_used_leaves_first() -> None:
    cache = PatternCache[int](2)
    rows = np.eye(3, dtype=np.float32)
    keys = [cache.key(row, b"", b"") for row in rows]
    cache.put(keys[0], rows[0], 0)
    cache.put(keys[1], rows[1], 1)
    assert cache.get(keys[0], rows[0]) == 0
    cache.put(keys[2], rows[2], 2)
    assert [cache.get(key, row) for key, row in zip(keys, rows, strict=True)] == [0, None, 2]
    assert cache.statistics() == {"hits": 3, "misses": 1, "hit_rate": 0.75, "size": 2, "capacity": 2}


class TestNoStaleAnswers:
    def test_across_sessions(self, topic_bank: PhraseBank) -> None:
        decoder = PhraseBankDecoder(DecodingConfig(context_weight=0.5))
        decoder.load_phrase_bank(topic_bank)
        row = TEACHER.encode(["the value of an object"])[0]
        past = Session().after(TEACHER.encode(["modules import names"])[0], "modules import names")
        assert [sources(decoder, row), sources(decoder, row, past)] == ["bank", "bank"]
        assert [sources(decoder, row), sources(decoder, row, past)] == ["cache", "cache"]
        fresh = PhraseBankDecoder(DecodingConfig(context_weight=0.5, enable_caching=False))
        fresh.load_phrase_bank(topic_bank)
        assert decoder.decode(row, session=past) == fresh.decode(row, session=past)

    def test_across_settings(self, topic_bank: PhraseBank, tmp_path: Path) -> None:
        decoder = PhraseBankDecoder(DecodingConfig(assembly_method="greedy"))
        decoder.load_phrase_bank(topic_bank)
        row = TEACHER.encode(["the value of an object"])[0]
        other = PhraseBankDecoder(DecodingConfig(assembly_method="greedy", listed_candidates=1))
        other.save_config(tmp_path / "c.json")
        decoder.decode(row)
        decoder.load_config(tmp_path / "c.json")
        (result,) = decoder.decode_batch(row)
        assert result.source == "bank" and len(result.candidates) == 1

    def test_across_banks(self, topic_bank: PhraseBank, tmp_path: Path) -> None:
        decoder = PhraseBankDecoder()
        decoder.load_phrase_bank(topic_bank)
        row = TEACHER.encode(["the value of an object"])[0]
        decoder.decode(row)
        create_bank(tmp_path, ["another phrase"], TEACHER)
        decoder.load_phrase_bank(tmp_path)
        assert decoder.decode(row) == "another phrase"

    def test_methods_that_ignore_sessions_share_answers_between_them(self, topic_bank: PhraseBank) -> None:
        decoder = PhraseBankDecoder(DecodingConfig(assembly_method="greedy"))
        decoder.load_phrase_bank(topic_bank)
        row = TEACHER.encode(["the value of an object"])[0]
        decoder.decode(row)
        assert sources(decoder, row, Session().after(row, "said")) == "cache"
