"""RETDecoder: every way of asking gives the answers that belong together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellular.decoders.ret import (
    RET,
    Checkpoint,
    RETDecoder,
    TeacherInfo,
    TorchEngine,
    Vocabulary,
    create_ultra_compact_decoder,
    save_checkpoint,
)
from cellular.errors import CellularError
from cellular.types import FloatArray

TEACHER = TeacherInfo(name="some-model", fingerprint="some:0123456789abcdef", dimension=384)


@pytest.fixture
def babbler(make_model: Callable[..., RET]) -> RETDecoder:
    """Untrained: writes all sorts of pieces, escapes and shifts among them."""
    model = make_model()
    model.pieces.data *= 8
    model.output_bias.data[1] += 4
    return RETDecoder(TorchEngine(model), model, Vocabulary.load())


def test_known_texts_are_decoded(
    memorised: RETDecoder, known_texts: list[str], known_embeddings: FloatArray
) -> None:
    assert memorised.decode_batch(known_embeddings) == known_texts
    assert memorised.decode(known_embeddings[3]) == known_texts[3]
    assert memorised.decode_batch(known_embeddings, method="beam", beam_width=4) == known_texts


def test_the_length_is_in_pieces(
    memorised: RETDecoder, known_texts: list[str], known_embeddings: FloatArray
) -> None:
    ids = memorised.vocabulary.encode(known_texts[5])
    assert memorised.decode(known_embeddings[5], max_length=len(ids)) == known_texts[5]
    assert memorised.decode(known_embeddings[5], max_length=4) == memorised.vocabulary.decode(ids[:4])


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_a_text_does_not_depend_on_its_neighbours(
    memorised: RETDecoder, mixed_embeddings: FloatArray, method: Any
) -> None:
    options: dict[str, Any] = {"method": method, "max_length": 20, "beam_width": 3}
    together = memorised.decode_batch(mixed_embeddings[:9], **options)
    assert together == [memorised.decode(row, **options) for row in mixed_embeddings[:9]]
    assert len(set(together)) > 3


@pytest.mark.parametrize("method", ["greedy", "sample"])
def test_streamed_increments_join_to_the_text(
    babbler: RETDecoder, make_embeddings: Callable[..., FloatArray], method: Any
) -> None:
    options: dict[str, Any] = {"method": method, "max_length": 40, "seed": 3}
    for row in make_embeddings(6):
        increments = list(babbler.stream(row, **options))
        assert "".join(increments) == babbler.decode(row, **options)
        assert all(increments)


def test_a_stream_is_checked_when_it_is_asked_for(memorised: RETDecoder) -> None:
    with pytest.raises(ValueError, match="zero vector"):
        memorised.stream(np.zeros(384, np.float32))


def test_samples_repeat_with_their_seed_only(
    babbler: RETDecoder, make_embeddings: Callable[..., FloatArray]
) -> None:
    rows = make_embeddings(3)
    first, again, other = (babbler.samples(rows, 4, max_length=20, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert [texts[0].text for texts in first] == babbler.decode_batch(rows, method="sample", max_length=20)
    assert len({hypothesis.text for hypothesis in first[0]}) == 4


def test_n_best_texts_differ_and_come_best_first(
    memorised: RETDecoder, known_texts: list[str], known_embeddings: FloatArray
) -> None:
    found = memorised.n_best(known_embeddings, 5, length_penalty=0)
    for text, hypotheses in zip(known_texts, found, strict=True):
        assert hypotheses[0].text == text
        assert len({hypothesis.text for hypothesis in hypotheses}) == len(hypotheses) <= 5
        scores = [hypothesis.log_probability for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True) and scores[0] < 0


def test_log_probabilities_of_texts_are_those_of_the_search(
    memorised: RETDecoder, known_embeddings: FloatArray
) -> None:
    for row, hypotheses in zip(known_embeddings, memorised.n_best(known_embeddings, 3), strict=True):
        best = hypotheses[0]
        assert memorised.log_probabilities(row, [best.text])[0] == pytest.approx(
            best.log_probability, abs=1e-3
        )


def test_texts_of_uneven_length_are_scored_alike_alone_and_together(
    memorised: RETDecoder, known_texts: list[str], known_embeddings: FloatArray
) -> None:
    texts = [*known_texts[:-1], ""]
    together = memorised.log_probabilities(known_embeddings, texts)
    alone = [
        memorised.log_probabilities(row, [text])[0] for row, text in zip(known_embeddings, texts, strict=True)
    ]
    assert together.dtype == np.float32 and np.allclose(together, alone, atol=1e-3)
    with pytest.raises(ValueError, match="as many texts"):
        memorised.log_probabilities(known_embeddings, texts[1:])


def test_no_embeddings_give_no_texts(memorised: RETDecoder) -> None:
    nothing = np.empty((0, 384), np.float32)
    assert memorised.decode_batch(nothing) == memorised.decode_batch(nothing, method="sample") == []
    assert memorised.n_best(nothing, 2) == memorised.samples(nothing, 2) == []
    assert memorised.log_probabilities(nothing, []).shape == (0,)


def test_the_bad_row_is_named(memorised: RETDecoder, known_embeddings: FloatArray) -> None:
    rows = known_embeddings.copy()
    rows[2, 7] = np.nan
    for ask in (memorised.decode_batch, lambda rows: memorised.n_best(rows, 2)):
        with pytest.raises(ValueError, match="row 2 holds nan"):
            ask(rows)


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 0},
        {"method": "magic"},
        {"method": "beam", "beam_width": 0},
        {"method": "beam", "beam_width": 129},
        {"method": "sample", "temperature": 0},
        {"method": "sample", "top_p": 2.0},
    ],
)
def test_options_out_of_range_are_refused(
    memorised: RETDecoder, known_embeddings: FloatArray, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="|".join(options).replace("_width", ".width")):
        memorised.decode_batch(known_embeddings, **options)


def test_more_rows_than_fit_at_once_are_decoded_in_turn(
    memorised: RETDecoder,
    known_texts: list[str],
    known_embeddings: FloatArray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cellular.decoders.ret.decoder._ROWS", 3)
    assert memorised.decode_batch(known_embeddings) == known_texts
    best = memorised.n_best(known_embeddings, 2)
    assert [hypotheses[0].text for hypotheses in best] == known_texts


class TestCheckpoints:
    @pytest.fixture
    def loaded(self, tmp_path: Path, memorised: RETDecoder) -> RETDecoder:
        save_checkpoint(tmp_path, Checkpoint(memorised.model, memorised.vocabulary, TEACHER))
        return RETDecoder.load(tmp_path, engine="torch")

    def test_a_loaded_decoder_writes_the_same(
        self, loaded: RETDecoder, known_texts: list[str], known_embeddings: FloatArray
    ) -> None:
        assert loaded.decode_batch(known_embeddings) == known_texts
        assert loaded.teacher == TEACHER and loaded._count_parameters() == 722_944

    def test_another_teacher_is_refused_and_both_are_named(self, loaded: RETDecoder) -> None:
        loaded.check_teacher(TEACHER.fingerprint)
        with pytest.raises(CellularError, match=r"other:0000000000000000.*some:0123456789abcdef"):
            loaded.check_teacher("other:0000000000000000")

    def test_an_untrained_decoder_takes_any_teacher(self) -> None:
        create_ultra_compact_decoder().check_teacher(TEACHER.fingerprint)

    def test_an_engine_that_is_not_there_is_refused(self, tmp_path: Path, memorised: RETDecoder) -> None:
        save_checkpoint(tmp_path, Checkpoint(memorised.model, memorised.vocabulary, TEACHER))
        with pytest.raises(CellularError, match="abacus"):
            RETDecoder.load(tmp_path, engine="abacus")


def test_embeddings_may_be_read_only_or_strided(
    memorised: RETDecoder, known_texts: list[str], known_embeddings: FloatArray
) -> None:
    frozen = known_embeddings.copy()
    frozen.flags.writeable = False
    assert memorised.decode_batch(frozen) == known_texts
    assert memorised.decode_batch(known_embeddings[::-1]) == known_texts[::-1]
    assert memorised.decode(torch.from_numpy(known_embeddings)[1]) == known_texts[1]


def test_threads_get_the_same_answers(memorised: RETDecoder, mixed_embeddings: FloatArray) -> None:
    rows = mixed_embeddings[:6]

    def answers(_: int) -> tuple[list[str], object]:
        return memorised.decode_batch(rows, max_length=20), memorised.samples(rows, 2, max_length=20)

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(answers, range(4)))
    assert seen == [answers(0)] * 4


def test_decoding_leaves_the_random_numbers_alone(babbler: RETDecoder) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    babbler.samples(np.ones(384, np.float32), 2, max_length=5)
    assert torch.equal(torch.rand(1), expected)
