"""HybridDecoder over a tiny bank and a tiny RET: bounded, repeatable, and no worse than its parts."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from cellular.bank import PhraseBank, create_bank
from cellular.config import HybridConfig
from cellular.decoders.consensus import consensus
from cellular.decoders.hybrid import EFFORTS, HybridDecoder
from cellular.decoders.ret import RET, RETConfig, RETDecoder, TeacherInfo, TorchEngine, Vocabulary
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.types import FloatArray

SMALL = {"draws": 6, "max_length": 12, "phrases": 4, "max_teacher_calls": 5}


class CountingTeacher(HashTeacher):
    """Notes how many texts it embeds."""

    def __init__(self) -> None:
        super().__init__(384)
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> FloatArray:
        self.calls += len(texts)
        return super().encode(texts)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, topic_sentences: list[str]) -> PhraseBank:
    path = tmp_path_factory.mktemp("hybrid") / "bank"
    create_bank(path, topic_sentences[:300], HashTeacher(384))
    return PhraseBank.open(path)


@pytest.fixture(scope="module")
def ret() -> RETDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RET(RETConfig(applications=2))
        torch.nn.init.normal_(model.output_bias, std=0.5)
    teacher = HashTeacher(384)
    info = TeacherInfo(name=teacher.name, fingerprint=teacher.fingerprint, dimension=384)
    return RETDecoder(TorchEngine(model), model, Vocabulary.load(), info)


@pytest.fixture(scope="module")
def targets(topic_sentences: list[str]) -> FloatArray:
    """One sentence of the bank, pairs of its sentences, and sentences that it lacks."""
    pairs = [f"{one} {other}" for one, other in zip(topic_sentences[:3], topic_sentences[50:53], strict=True)]
    return HashTeacher(384).encode([topic_sentences[7], *pairs, *topic_sentences[400:404]])


def make(bank: PhraseBank, ret: RETDecoder, **settings: float) -> tuple[HybridDecoder, CountingTeacher]:
    teacher = CountingTeacher()
    return HybridDecoder(bank, ret, teacher, HybridConfig.model_validate(SMALL | settings)), teacher


@pytest.mark.parametrize("calls", [0, 1, 3, 50])
def test_the_teacher_is_called_no_more_than_allowed(
    bank: PhraseBank, ret: RETDecoder, targets: FloatArray, calls: int
) -> None:
    decoder, teacher = make(bank, ret)
    results = decoder.decode_batch(targets, max_teacher_calls=calls)
    assert max(result.teacher_calls for result in results) <= calls
    assert teacher.calls == sum(result.teacher_calls for result in results)
    assert all(result.text for result in results)


def test_scores_are_the_teachers_cosines_unless_marked(
    bank: PhraseBank, ret: RETDecoder, targets: FloatArray
) -> None:
    decoder, teacher = make(bank, ret, likelihood_weight=0.0)
    for calls in (0, 5):
        results = decoder.decode_batch(targets, max_teacher_calls=calls)
        cosines = (teacher.encode([result.text for result in results]) * targets).sum(axis=1)
        for result, cosine in zip(results, cosines, strict=True):
            assert result.estimated or result.score == pytest.approx(cosine, abs=1e-3)
            assert not (calls and result.estimated)


def test_it_is_no_farther_than_either_part_where_only_the_cosine_counts(
    bank: PhraseBank, ret: RETDecoder, targets: FloatArray
) -> None:
    decoder, teacher = make(bank, ret, likelihood_weight=0.0, consensus_weight=0.0, enough=1.0)
    found = np.array([result.score for result in decoder.decode_batch(targets)])
    written = (teacher.encode(ret.decode_batch(targets, max_length=12)) * targets).sum(axis=1)
    assert (found >= bank.search(targets, 1).scores[:, 0] - 1e-6).all()
    assert (found >= written - 1e-6).all()


def test_assembled_phrases_are_judged_too(bank: PhraseBank, ret: RETDecoder, targets: FloatArray) -> None:
    decoder, _ = make(bank, ret, likelihood_weight=0.0, consensus_weight=0.0)
    pairs = decoder.decode_batch(targets[1:4])
    assert all(result.source == "bank" for result in pairs)
    assert (np.array([result.score for result in pairs]) > bank.search(targets[1:4], 1).scores[:, 0]).all()


def test_a_phrase_of_the_bank_comes_back_without_a_call(
    bank: PhraseBank, ret: RETDecoder, targets: FloatArray, topic_sentences: list[str]
) -> None:
    decoder, teacher = make(bank, ret)
    assert decoder.decode(targets[0]) == topic_sentences[7]
    assert teacher.calls == 0


def test_a_batch_answers_as_one_by_one_and_the_same_each_time(
    bank: PhraseBank, ret: RETDecoder, targets: FloatArray
) -> None:
    decoder, _ = make(bank, ret)
    for calls in (0, 5):
        together = decoder.decode_batch(targets, max_teacher_calls=calls, seed=3)
        assert [one.text for one in together] == [
            decoder.decode(row, max_teacher_calls=calls, seed=3) for row in targets
        ]
        assert decoder.decode_batch(targets, max_teacher_calls=calls, seed=3) == together


def test_the_seed_decides_the_draws(bank: PhraseBank, ret: RETDecoder, targets: FloatArray) -> None:
    decoder, _ = make(bank, ret)
    best = decoder.stored(targets)
    one, again, other = (decoder.propose(targets, [some[0] for some in best], seed) for seed in (1, 1, 2))
    assert one == again != other
    assert one[0] == []  # the bank has it
    assert one[4][0].text == ret.decode_batch(targets[4:5], max_length=12)[0]


def test_no_rows_give_no_results(bank: PhraseBank, ret: RETDecoder) -> None:
    assert make(bank, ret)[0].decode_batch(np.empty((0, 384), np.float32)) == []


def test_parts_of_different_teachers_are_refused_by_name(
    bank: PhraseBank, ret: RETDecoder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(CellularError, match="hash:0000000200000180, not of hash:0000000200000100"):
        HybridDecoder(bank, ret, HashTeacher())
    path = tmp_path_factory.mktemp("other") / "bank"
    create_bank(path, ["a phrase"], HashTeacher())
    with pytest.raises(CellularError, match=r"hash:0000000200000100.* reads hash:0000000200000180"):
        HybridDecoder(PhraseBank.open(path), ret, HashTeacher())


def test_efforts_have_names(bank: PhraseBank, ret: RETDecoder) -> None:
    for name, config in EFFORTS.items():
        assert HybridDecoder(bank, ret, HashTeacher(384), name).config == config
    with pytest.raises(CellularError, match="choose among none, low, medium, high"):
        HybridDecoder(bank, ret, HashTeacher(384), "utmost")
    with pytest.raises(ValueError, match="max_teacher_calls"):
        make(bank, ret)[0].decode_batch(np.ones((1, 384), np.float32), max_teacher_calls=-1)


class TestConsensus:
    def test_what_others_say_too_scores_more(self) -> None:
        texts = ["a dog runs on the beach", "a dog runs along the beach", "rain falls"]
        one, two, three = consensus(texts, np.full(3, 1 / 3, np.float32))
        assert min(one, two) > three > 0

    def test_a_text_alone_agrees_with_itself(self) -> None:
        assert consensus(["a dog"], np.ones(1, np.float32))[0] == pytest.approx(1)

    def test_texts_without_letters_are_allowed(self) -> None:
        assert np.isfinite(consensus(["", "?", "a"], np.full(3, 1 / 3, np.float32))).all()
