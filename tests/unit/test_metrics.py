"""Scores against values computed by hand and by sacrebleu's own functions."""

import math

import numpy as np
import pytest
import sacrebleu

from cellular.metrics import (
    Estimate,
    corpus_scores,
    estimate,
    over_seeds,
    signatures,
    text_scores,
    token_f1,
)

REFERENCES = ["the cat sat on the mat", "a dog barks", "Rain falls on the old roof today", "Good bye ."]
OUTPUTS = ["the cat lay on the mat", "a dog barks", "rain falls", ""]


@pytest.mark.parametrize(
    ("output", "reference", "expected"),
    [
        ("a b", "a b", 1.0),
        ("B  a", "a b", 1.0),  # neither order, case nor spacing counts
        ("a a a", "a b", 2 / 3),  # a set: repetition neither helps nor harms
        ("a b c", "c d", 2 / 5),
        ("a,", "a", 0.0),  # punctuation belongs to its word
        ("", "a", 0.0),
        ("", "", 1.0),
    ],
)
def test_token_f1_by_hand(output: str, reference: str, expected: float) -> None:
    assert token_f1(output, reference) == pytest.approx(expected)


def test_corpus_scores_are_sacrebleus() -> None:
    scores = corpus_scores(OUTPUTS, REFERENCES)
    assert scores["bleu"].mean == pytest.approx(sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES]).score, abs=1e-5)
    assert scores["chrf"].mean == pytest.approx(sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES]).score, abs=1e-5)
    assert scores["bleu"].error > 0


def test_perfect_and_hopeless_outputs_have_no_error() -> None:
    assert corpus_scores(REFERENCES, REFERENCES)["bleu"].mean == pytest.approx(100)
    assert corpus_scores(REFERENCES, REFERENCES)["chrf"] == Estimate(100.0, 0.0)
    assert corpus_scores(["x"] * 4, ["y y y y"] * 4)["bleu"] == Estimate(0.0, 0.0)


def test_the_bootstrap_error_of_chrf_is_near_the_analytic_error_of_its_sentences() -> None:
    rng = np.random.default_rng(0)
    words = np.array(["one", "two", "three", "four", "five", "six", "seven", "eight"])
    references = [" ".join(rng.choice(words, 8)) for _ in range(200)]
    outputs = [" ".join(w for w in text.split() if rng.random() < 0.7) for text in references]
    pairs = zip(outputs, references, strict=True)
    sentences = [sacrebleu.sentence_chrf(output, [reference]).score for output, reference in pairs]
    analytic = np.std(sentences) / math.sqrt(200)
    assert corpus_scores(outputs, references)["chrf"].error == pytest.approx(analytic, rel=0.25)


def test_text_scores_are_those_of_each_text() -> None:
    scores = text_scores(OUTPUTS, REFERENCES, np.arange(4, dtype=np.float32))
    pairs = zip(OUTPUTS, REFERENCES, strict=True)
    bleu = [sacrebleu.sentence_bleu(output, [reference]).score for output, reference in pairs]
    assert scores.sentence_bleu == pytest.approx(bleu)
    assert scores.exact_match.tolist() == [0, 1, 0, 0]
    assert scores.f1 == pytest.approx([8 / 10, 1, 4 / 9, 0])
    assert scores.cosine.tolist() == [0, 1, 2, 3]


def test_signatures_say_what_was_done() -> None:
    assert "tok:13a" in signatures()["bleu"]
    assert "nc:6" in signatures()["chrf"]


def test_estimate_by_hand() -> None:
    assert estimate(np.array([1, 2, 3, 4], np.float32)).mean == 2.5
    assert estimate(np.array([1, 2, 3, 4], np.float32)).error == pytest.approx(math.sqrt(5 / 3 / 4))
    assert estimate(np.array([7], np.float32)) == Estimate(7.0, 0.0)


def test_seeds_add_their_own_spread() -> None:
    assert over_seeds([Estimate(2.0, 0.5)]) == Estimate(2.0, 0.5)
    assert over_seeds([Estimate(2.0, 0.5), Estimate(2.0, 0.5)]) == Estimate(2.0, 0.5)
    assert over_seeds([Estimate(1.0, 0.0), Estimate(3.0, 0.0)]) == Estimate(2.0, 1.0)


@pytest.mark.parametrize(("outputs", "references"), [([], []), (["a"], ["a", "b"])])
def test_what_cannot_be_paired_is_refused(outputs: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be scored"):
        corpus_scores(outputs, references)
    with pytest.raises(ValueError, match="cannot be scored"):
        text_scores(outputs, references, np.zeros(len(outputs), np.float32))
