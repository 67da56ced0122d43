"""Engines and what is written with them, against full passes without a cache."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cellular.decoders.ret import RET, RETDecoder, TorchEngine
from cellular.decoders.ret.generation import Sampler, generate, likeliest, sample, up_to_end
from cellular.decoders.ret.likelihood import log_probabilities
from cellular.decoders.ret.vocabulary import END
from cellular.errors import CellularError
from cellular.types import FloatArray


@torch.inference_mode()
def greedy_without_cache(model: RET, embedding: FloatArray, max_pieces: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < max_pieces:
        logits = model(torch.from_numpy(embedding)[None], torch.tensor([ids], dtype=torch.int64))
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == END:
            return ids[:-1]
    return ids


@pytest.mark.parametrize("dimension", [384, 768])
def test_logits_with_the_cache_are_those_of_a_full_pass(
    make_model: Callable[..., RET], make_embeddings: Callable[..., FloatArray], dimension: int
) -> None:
    model, embeddings = make_model(dimension, 8), make_embeddings(5, dimension)
    pieces_BL = torch.randint(0, 256, (5, 30), generator=torch.Generator().manual_seed(0))
    engine = TorchEngine(model)
    state, logits = engine.start(embeddings, 30)
    stepped = [logits, *(engine.step(state, ids_B) for ids_B in pieces_BL.T)]
    with torch.inference_mode():
        full = model(torch.from_numpy(embeddings), pieces_BL)
    assert torch.allclose(torch.stack(stepped, 1), full, atol=2e-4)


def test_greedy_text_is_the_same_with_and_without_the_cache(
    memorised: RETDecoder, mixed_embeddings: FloatArray
) -> None:
    rows = mixed_embeddings[:8]
    written = memorised.engine.greedy(rows, 40)
    assert [ids.tolist() for ids in written] == [
        greedy_without_cache(memorised.model, row, 40) for row in rows
    ]
    assert len({len(ids) for ids in written}) > 3


def test_batch_of_64_writes_as_one_by_one(memorised: RETDecoder, mixed_embeddings: FloatArray) -> None:
    together = memorised.engine.greedy(mixed_embeddings, 30)
    alone = [memorised.engine.greedy(row[None], 30)[0] for row in mixed_embeddings]
    assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]


def test_finished_rows_drop_out(memorised: RETDecoder, known_embeddings: FloatArray) -> None:
    sizes = [len(position.rows_R) for position in generate(memorised.engine, known_embeddings, 60, likeliest)]
    assert sizes[0] == len(known_embeddings) and sizes[-1] < 3
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("rows", [[3, 1, 1], [0, 1, 1, 3], [0, 0, 0, 0], [1, 0, 2, 3], [2], [0, 1, 2, 3, 0]])
def test_selected_rows_go_on_as_they_would_have(
    make_model: Callable[..., RET], make_embeddings: Callable[..., FloatArray], rows: list[int]
) -> None:
    engine, embeddings = TorchEngine(make_model()), make_embeddings(4)
    first, second = torch.tensor([5, 6, 7, 8]), torch.tensor([90, 91, 92, 93])
    state, _ = engine.start(embeddings, 2)
    engine.step(state, first)
    selected = engine.select(state, torch.tensor(rows))
    alone, _ = engine.start(embeddings[rows], 2)
    engine.step(alone, first[rows])
    assert torch.allclose(engine.step(selected, second[rows]), engine.step(alone, second[rows]), atol=1e-5)


def test_no_more_pieces_than_asked_for(memorised: RETDecoder, known_embeddings: FloatArray) -> None:
    whole = memorised.engine.greedy(known_embeddings, 60)
    for length in (1, 2, 7):
        cut = memorised.engine.greedy(known_embeddings, length)
        assert [ids.tolist() for ids in cut] == [ids[:length].tolist() for ids in whole]


def test_bf16_nearly_agrees_and_other_precisions_are_refused(
    memorised: RETDecoder, known_embeddings: FloatArray
) -> None:
    exact = memorised.engine.greedy(known_embeddings, 60)
    rounded = TorchEngine(memorised.model, "bf16").greedy(known_embeddings, 60)
    same = [np.array_equal(a, b) for a, b in zip(exact, rounded, strict=True)]
    assert np.mean(same) > 0.7
    assert memorised.model.projection.dtype == torch.float32
    with pytest.raises(CellularError, match="int8"):
        TorchEngine(memorised.model, "int8")


class TestSampling:
    def test_the_draws_follow_the_distribution(self) -> None:
        logits = torch.tensor([0.5, 0.3, 0.2]).log()
        sampler = Sampler(4_000, 1, temperature=1.0, top_p=1.0, seed=0)
        drawn = sampler(logits.expand(4_000, 3), torch.arange(4_000), 0)
        assert np.allclose(np.bincount(drawn, minlength=3) / 4_000, [0.5, 0.3, 0.2], atol=0.03)

    @pytest.mark.parametrize(
        ("temperature", "top_p", "expected"),
        [
            (1.0, 0.75, [0.625, 0.375, 0]),
            (1.0, 0.45, [1, 0, 0]),
            (0.5, 1.0, [0.658, 0.237, 0.105]),
            (0.01, 1.0, [1, 0, 0]),
            (1.0, 1e-9, [1, 0, 0]),
        ],
    )
    def test_temperature_and_top_p_sharpen_it(
        self, temperature: float, top_p: float, expected: list[float]
    ) -> None:
        logits = torch.tensor([0.5, 0.3, 0.2]).log()
        sampler = Sampler(4_000, 1, temperature, top_p, seed=0)
        drawn = sampler(logits.expand(4_000, 3), torch.arange(4_000), 0)
        assert np.allclose(np.bincount(drawn, minlength=3) / 4_000, expected, atol=0.03)

    def test_log_probabilities_are_those_of_a_full_pass(
        self, memorised: RETDecoder, mixed_embeddings: FloatArray
    ) -> None:
        sampler = Sampler(3, 80, temperature=1.5, top_p=0.9, seed=0)
        rows = mixed_embeddings[:6]
        drawn = [written for texts in sample(memorised.engine, rows, 80, 3, sampler) for written in texts]
        ended = [number for number, written in enumerate(drawn) if len(written.pieces) < 80]
        assert len(ended) > 9
        expected = log_probabilities(
            memorised.model, rows.repeat(3, 0)[ended], [drawn[number].pieces for number in ended]
        )
        assert np.allclose([drawn[number].log_probability for number in ended], expected, atol=1e-2)

    def test_the_extreme_draws_are_possible_pieces(self) -> None:
        logits = torch.full((2, 256), -50.0)
        logits[:, 7] = 0
        sampler = Sampler(2, 1, temperature=1.0, top_p=1.0, seed=0)
        sampler._uniform_SL = torch.tensor([[0.0], [1 - 2**-24]])
        assert sampler(logits, torch.arange(2), 0).tolist() == [7, 7]

    @pytest.mark.parametrize(
        ("temperature", "top_p"), [(0, 0.9), (-1, 0.9), (np.nan, 0.9), (np.inf, 0.9), (1, 0), (1, 1.1)]
    )
    def test_options_out_of_range_are_refused(self, temperature: float, top_p: float) -> None:
        with pytest.raises(ValueError, match="temperature"):
            Sampler(1, 1, temperature, top_p, 0)


def test_ids_end_before_the_first_end() -> None:
    assert up_to_end(np.array([5, 6, 0, 7, 0], np.uint8)).tolist() == [5, 6]
    assert up_to_end(np.array([5, 6], np.uint8)).tolist() == [5, 6]
