"""Texts to texts: alone and together, at once and piece by piece."""

import numpy as np
import pytest
import torch

from cellular.cct import MAX_SOURCE, TextToText

from .conftest import TEXTS


def test_together_as_one_by_one(text_to_text: TextToText) -> None:
    together = text_to_text.generate(TEXTS, 24)
    assert together == [text_to_text.generate([text], 24)[0] for text in TEXTS]
    assert len(set(together)) > 1
    alone = np.concatenate([text_to_text.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(text_to_text.encode(TEXTS), alone, atol=1e-6)


def test_a_stream_joins_to_the_text(text_to_text: TextToText) -> None:
    for text in TEXTS:
        increments = list(text_to_text.stream(text, 24, "reply"))
        assert all(increments)
        assert "".join(increments) == text_to_text.generate([text], 24, "reply")[0]


def test_generate_is_encode_transform_decode(text_to_text: TextToText) -> None:
    embeddings = text_to_text.encode(TEXTS)
    assert embeddings.shape == (len(TEXTS), 32) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    transformed = text_to_text.transform(embeddings, "reply")
    assert text_to_text.decode(transformed, 24) == text_to_text.generate(TEXTS, 24, "reply")


def test_tasks_give_texts_of_their_own(text_to_text: TextToText) -> None:
    assert text_to_text.tasks == ("reconstruct", "reply")
    default, reply = text_to_text.generate(TEXTS, 24), text_to_text.generate(TEXTS, 24, "reply")
    assert default == text_to_text.generate(TEXTS, 24, "reconstruct") != reply


@torch.no_grad()
def test_piece_by_piece_is_the_full_pass(text_to_text: TextToText) -> None:
    embeddings = text_to_text.encode(TEXTS[:3])
    pieces = torch.randint(2, 256, (3, 6), generator=torch.Generator().manual_seed(0))
    whole = text_to_text.model.decoder(torch.from_numpy(embeddings), pieces)
    writer = text_to_text._writer
    state, logits = writer.start(embeddings, 6)
    found = [logits, *(writer.step(state, pieces[:, place]) for place in range(6))]
    torch.testing.assert_close(torch.stack(found, 1), whole, rtol=1e-4, atol=1e-5)


def test_nothing_in_nothing_out(text_to_text: TextToText) -> None:
    assert text_to_text.generate([]) == []
    assert text_to_text.encode([]).shape == (0, 32)


def test_a_length_is_a_limit(text_to_text: TextToText) -> None:
    assert len(text_to_text.vocabulary.encode(text_to_text.generate(TEXTS[:1], 3)[0])) <= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["fine", 3],), r"texts\[1\] is int"),
        (("one text",), "list of strings"),
        ((["\ud800"],), "not Unicode"),
        ((["fine", "a b " * MAX_SOURCE],), r"texts\[1\] has \d+ pieces: give at most 1024"),
        ((["fine"], 0), "max_length must be at least 1, not 0"),
        ((["fine"], 8, "sing"), "no task 'sing': this model has reconstruct, reply"),
    ],
)
def test_bad_input_is_named(text_to_text: TextToText, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_to_text.generate(*arguments)  # type: ignore[arg-type]


def test_embeddings_of_another_space_are_refused(text_to_text: TextToText) -> None:
    with pytest.raises(ValueError, match=r"shape \(N, 32\)"):
        text_to_text.transform(np.ones((2, 384), np.float32))
