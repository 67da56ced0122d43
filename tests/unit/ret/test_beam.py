"""Beam search, against trying every text."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch

from cellular.decoders.ret import RET, RETDecoder, TorchEngine
from cellular.decoders.ret.beam import beam_search
from cellular.decoders.ret.likelihood import log_probabilities
from cellular.types import FloatArray


@pytest.fixture
def four_piece_model(make_model: Callable[..., RET]) -> RET:
    """Writes END and the pieces 2, 3 and 4 only, each with a fair chance."""
    model = make_model()
    model.pieces.data *= 8
    model.output_bias.data.fill_(-1e4)
    model.output_bias.data[[0, 2, 3, 4]] = torch.tensor([-1.0, 0.0, 0.0, 0.0])
    return model


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_search_finds_the_best_of_all_texts(
    four_piece_model: RET, make_embeddings: Callable[..., FloatArray], penalty: float
) -> None:
    embeddings = make_embeddings(2)
    texts = [np.array(ids, np.uint8) for n in range(4) for ids in product((2, 3, 4), repeat=n)]
    found = beam_search(TorchEngine(four_piece_model), embeddings, 4, 64, penalty)
    for embedding, written in zip(embeddings, found, strict=True):
        scores = log_probabilities(four_piece_model, np.tile(embedding, (len(texts), 1)), texts)
        normalised = scores / np.array([len(ids) + 1 for ids in texts]) ** penalty
        best = [(texts[row].tolist(), scores[row]) for row in np.argsort(-normalised)]
        ended = [text for text in written if len(text.pieces) < 4]
        assert len(ended) >= 5
        for text, (ids, score) in zip(ended, best, strict=False):
            assert text.pieces.tolist() == ids
            assert text.log_probability == pytest.approx(score, abs=1e-3)


def test_width_1_without_penalty_is_greedy(memorised: RETDecoder, known_embeddings: FloatArray) -> None:
    found = beam_search(memorised.engine, known_embeddings, 60, 1)
    greedy = memorised.engine.greedy(known_embeddings, 60)
    assert [texts[0].pieces.tolist() for texts in found] == [ids.tolist() for ids in greedy]


def test_a_wider_search_finds_a_likelier_text(memorised: RETDecoder, known_embeddings: FloatArray) -> None:
    rows = np.roll(known_embeddings, 1, 0) + known_embeddings
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    narrow, wide = (beam_search(memorised.engine, rows, 60, width) for width in (1, 6))
    gains = [b[0].log_probability - a[0].log_probability for a, b in zip(narrow, wide, strict=True)]
    assert np.mean(gains) > 0 and min(gains) > -2
    assert all(len(texts) == 6 for texts in wide)


def test_an_embedding_is_searched_alike_alone_and_among_others(
    memorised: RETDecoder, known_embeddings: FloatArray
) -> None:
    together = beam_search(memorised.engine, known_embeddings, 30, 4, 0.6)
    for row, texts in zip(known_embeddings, together, strict=True):
        (alone,) = beam_search(memorised.engine, row[None], 30, 4, 0.6)
        assert [text.pieces.tolist() for text in alone] == [text.pieces.tolist() for text in texts]


def test_texts_come_best_first_and_never_longer_than_allowed(
    memorised: RETDecoder, known_embeddings: FloatArray
) -> None:
    for texts in beam_search(memorised.engine, known_embeddings, 5, 8):
        scores = [text.log_probability for text in texts]
        assert scores == sorted(scores, reverse=True)
        assert max(len(text.pieces) for text in texts) == 5


def test_a_penalty_prefers_longer_texts(
    four_piece_model: RET, make_embeddings: Callable[..., FloatArray]
) -> None:
    engine, embeddings = TorchEngine(four_piece_model), make_embeddings(8)
    lengths = [
        np.mean([len(texts[0].pieces) for texts in beam_search(engine, embeddings, 12, 8, penalty)])
        for penalty in (0.0, 1.0)
    ]
    assert lengths[1] > lengths[0]


@pytest.mark.parametrize(("width", "penalty"), [(0, 0.0), (129, 0.0), (4, -0.1), (4, np.nan)])
def test_options_out_of_range_are_refused(memorised: RETDecoder, width: int, penalty: float) -> None:
    with pytest.raises(ValueError, match="beam width of 1 to 128"):
        beam_search(memorised.engine, np.ones((1, 384), np.float32), 5, width, penalty)
