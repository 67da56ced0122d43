"""Assembly: what the methods choose, and that their arithmetic is that of the vectors."""

from itertools import permutations

import numpy as np
import pytest

from cellular.bank import PhraseBank
from cellular.config import DecodingConfig
from cellular.decoders import PhraseBankDecoder
from cellular.decoders.assembly import ASSEMBLERS, FIRST_WEIGHT, Assembly, Pool, gather
from cellular.teachers import HashTeacher
from cellular.types import FloatArray

TEACHER = HashTeacher()
STORED_PRECISION = 1e-3  # float16 vectors are not quite of unit length


def pool_for(bank: PhraseBank, target: FloatArray, method: str, config: DecodingConfig) -> Pool:
    (pool,) = gather(bank, target[np.newaxis], ASSEMBLERS[method], config)
    assert pool is not None
    return pool


def assemble(
    bank: PhraseBank, text: str, method: str, config: DecodingConfig, prior: FloatArray | None = None
) -> Assembly:
    pool = pool_for(bank, TEACHER.encode([text])[0], method, config)
    return ASSEMBLERS[method].choose(pool, config, prior)


def predicted_cosine(pool: Pool, members: tuple[int, ...]) -> float:
    weights = np.sqrt(pool.lengths[list(members)])
    weights[0] *= FIRST_WEIGHT
    combined = weights @ pool.vectors[list(members)]
    return float(combined @ pool.target / np.linalg.norm(combined))


def test_greedy_takes_the_nearest(topic_bank: PhraseBank) -> None:
    config = DecodingConfig()
    pool = pool_for(topic_bank, TEACHER.encode(["the value of an object"])[0], "greedy", config)
    exact = topic_bank.exact_search(pool.target, 1)
    assert ASSEMBLERS["greedy"].choose(pool, config, None).phrases == (int(exact.ids[0, 0]),)


def test_weighted_prefers_the_frequent_among_equals(topic_bank: PhraseBank) -> None:
    config = DecodingConfig(frequency_weight=100.0)
    pool = pool_for(topic_bank, TEACHER.encode(["the value of an object"])[0], "weighted", config)
    (chosen,) = ASSEMBLERS["weighted"].choose(pool, config, None).phrases
    assert topic_bank.counts([chosen])[0] == topic_bank.counts(pool.ids).max()
    plain = DecodingConfig(frequency_weight=0.0, length_weight=0.0)
    greedy = ASSEMBLERS["greedy"].choose(pool, plain, None)
    assert ASSEMBLERS["weighted"].choose(pool, plain, None) == greedy


@pytest.mark.parametrize("pair", [(3, 40), (11, 12), (300, 7)])
def test_two_phrases_are_found_in_their_joint_embedding(
    topic_bank: PhraseBank, topic_sentences: list[str], pair: tuple[int, int]
) -> None:
    text = " ".join(topic_sentences[row] for row in pair)
    assert set(assemble(topic_bank, text, "beam_search", DecodingConfig()).phrases) == set(pair)


def test_a_second_phrase_must_earn_its_place(topic_bank: PhraseBank, topic_sentences: list[str]) -> None:
    text = topic_sentences[3] + " " + topic_sentences[40]
    assert len(assemble(topic_bank, text, "beam_search", DecodingConfig(min_gain=1.0)).phrases) == 1
    assert len(assemble(topic_bank, text, "beam_search", DecodingConfig(max_phrases=1)).phrases) == 1


def test_no_phrase_is_chosen_twice(topic_bank: PhraseBank) -> None:
    config = DecodingConfig(min_gain=0.0, max_phrases=6)
    phrases = assemble(topic_bank, "the value of an object and its type", "beam_search", config).phrases
    assert len(set(phrases)) == len(phrases) == 6


def test_the_score_is_the_cosine_of_the_weighted_sum(topic_bank: PhraseBank) -> None:
    config = DecodingConfig(min_gain=0.0, max_phrases=4)
    pool = pool_for(topic_bank, TEACHER.encode(["modules, values and names"])[0], "beam_search", config)
    assembly = ASSEMBLERS["beam_search"].choose(pool, config, None)
    members = tuple(pool.ids.tolist().index(phrase) for phrase in assembly.phrases)
    assert assembly.score == pytest.approx(predicted_cosine(pool, members), abs=STORED_PRECISION)


def test_pairs_are_searched_exhaustively(topic_bank: PhraseBank) -> None:
    config = DecodingConfig(min_gain=0.0, max_phrases=2, top_k=8)
    pool = pool_for(topic_bank, TEACHER.encode(["an iterator over modules"])[0], "beam_search", config)
    best = max(predicted_cosine(pool, pair) for pair in permutations(range(len(pool.ids)), 2))
    assert ASSEMBLERS["beam_search"].choose(pool, config, None).score == pytest.approx(
        best, abs=STORED_PRECISION
    )


def test_a_prior_decides_between_near_equals(topic_bank: PhraseBank) -> None:
    config = DecodingConfig(max_phrases=1)
    pool = pool_for(topic_bank, TEACHER.encode(["the value of an object"])[0], "context_aware", config)
    prior = np.zeros(len(pool.ids), np.float32)
    prior[4] = 1.0
    assembly = ASSEMBLERS["context_aware"].choose(pool, config, prior)
    assert assembly.phrases == (int(pool.ids[4]),)
    assert assembly.score == pytest.approx(float(pool.scores[4]), abs=1e-3)  # the prior is not in the score


def test_small_banks_and_large_k(topic_bank: PhraseBank) -> None:
    config = DecodingConfig(top_k=5000, max_phrases=3)
    pool = pool_for(topic_bank, TEACHER.encode(["the value of an object"])[0], "beam_search", config)
    assert sorted(pool.ids.tolist()) == list(range(len(topic_bank)))
    assert pool.found == len(topic_bank)


def test_a_text_does_not_depend_on_what_is_decoded_with_it(
    topic_bank: PhraseBank, topic_sentences: list[str]
) -> None:
    pairs = [f"{one} {two}" for one, two in zip(topic_sentences[:90], topic_sentences[90:180], strict=True)]
    mixed = TEACHER.encode([*pairs, *topic_sentences[:10]])  # the last ten need no second phrase
    decoder = PhraseBankDecoder(DecodingConfig(assembly_method="beam_search", enable_caching=False))
    decoder.load_phrase_bank(topic_bank)
    assert [decoder.decode(row) for row in mixed] == [result.text for result in decoder.decode_batch(mixed)]
