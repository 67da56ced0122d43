"""The vocabulary: nothing is lost, nothing is wasted, nothing it is fed makes it raise."""

import json
import re
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cellular.decoders.ret.vocabulary import END, ESCAPE, PIECES, SHIFT, SPACE, Vocabulary
from cellular.errors import CellularError

VOCABULARY = Vocabulary.load()
ids_ = st.lists(st.integers(0, 255) | st.sampled_from([END, ESCAPE, 2, 17, 62, 63]), max_size=40)


@given(st.text())
@example(f"{SHIFT}a {SPACE}{SHIFT}{SHIFT}A{SPACE}")
@example("İstanbul, weiß, ŉ ǅ ǆ Ǆ ı ſ K Å µ Ω ς")
@example("\0\x01\x02\t\r\n\x0b\x1c\x85\xa0\u2028\ufeff\x7f")
@example("e\u0301 👩\u200d👩\u200d👧 🏳️\u200d🌈 नमस्ते 한국어 中文 עברית \U0010ffff \ufffd")
@example("ALL CAPS, Some Caps; nO cAPS  two  spaces ")
@example("")
def test_any_text_comes_back_exactly(text: str) -> None:
    ids = VOCABULARY.encode(text)
    assert END not in ids
    assert VOCABULARY.decode(ids) == text
    assert VOCABULARY.decode([*ids, END, 70, 80]) == text


@given(st.binary())
def test_any_binary_junk_that_can_be_text_comes_back(junk: bytes) -> None:
    text = junk.decode("utf-8", "replace")
    assert VOCABULARY.decode(VOCABULARY.encode(text)).encode() == text.encode()


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not Unicode"):
        VOCABULARY.encode(text)


def test_one_string_is_no_batch() -> None:
    with pytest.raises(ValueError, match=r"pass \[text\]"):
        VOCABULARY.encode_batch("text")


@given(st.lists(st.sampled_from(VOCABULARY.pieces), max_size=12).map("".join))
def test_no_cut_of_a_text_has_fewer_pieces(marked: str) -> None:
    text = VOCABULARY.decode([2 + VOCABULARY.pieces.index(character) for character in marked])
    canonical = re.sub("[A-Z]", lambda match: SHIFT + match[0].lower(), text).replace(" ", SPACE)
    fewest = [0] + [1_000] * len(canonical)
    for end in range(1, len(canonical) + 1):
        for piece in VOCABULARY.pieces:
            if canonical.startswith(piece, end - len(piece), end) and len(piece) <= end:
                fewest[end] = min(fewest[end], fewest[end - len(piece)] + 1)
    assert len(VOCABULARY.encode(text)) == fewest[-1]


def test_english_prose_has_1_8_characters_a_piece() -> None:
    sentences = {" ".join(line.split()) for text in topics.values() for line in text.split(". ")}
    prose = [line for line in sentences if re.fullmatch(r"[A-Z][a-z ,;'-]{20,160}\.?", line)]
    assert len(prose) > 100
    pieces = sum(len(ids) for ids in VOCABULARY.encode_batch(prose))
    assert sum(map(len, prose)) / pieces >= 1.8


def test_a_batch_is_its_texts_one_by_one() -> None:
    texts = ["One.", "", "zwei Äpfel", "\U0001f600" * 3, "One."] * 3
    for ids, text in zip(VOCABULARY.encode_batch(texts), texts, strict=True):
        assert ids.dtype == np.uint8 and np.array_equal(ids, VOCABULARY.encode(text))


@given(ids_)
def test_any_ids_give_a_text_that_can_be_encoded(ids: list[int]) -> None:
    text = VOCABULARY.decode(ids)
    assert VOCABULARY.decode(VOCABULARY.encode(text)) == text


@given(st.lists(st.lists(st.integers(0, 255) | st.sampled_from([END, ESCAPE]), min_size=9, max_size=9)))
def test_a_batch_of_ids_gives_the_texts_of_its_rows(rows: list[list[int]]) -> None:
    ids = np.array(rows, np.uint8).reshape(-1, 9)
    assert VOCABULARY.decode_batch(ids) == [VOCABULARY.decode(row) for row in rows]


def test_ids_may_come_as_any_sequence_of_integers() -> None:
    ids = VOCABULARY.encode("Hello, Welt ß!")
    for same in (ids.astype(np.int64), torch.from_numpy(ids), ids.tolist(), iter(ids)):
        assert VOCABULARY.decode(same) == "Hello, Welt ß!"


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([ESCAPE], "\ufffd"),
        ([ESCAPE, 5], "\ufffd$"),
        ([ESCAPE, 5, END, 70], "\ufffd$"),
        ([ESCAPE, 16, 16], "\ufffd"),
        ([ESCAPE, 16, 5, ESCAPE, 12, 11, 34], "\ufffda"),  # a byte that starts a character, one that cannot
    ],
)
def test_broken_escapes_give_replacement_characters(ids: list[int], text: str) -> None:
    assert VOCABULARY.decode(ids).replace("\ufffd\ufffd", "\ufffd") == text


def test_a_shift_before_what_has_no_capital_is_ignored() -> None:
    shift, a, one, space = (2 + VOCABULARY.pieces.index(piece) for piece in (SHIFT, "a", "1", SPACE))
    assert VOCABULARY.decode([shift, one, shift, shift, a, shift, space, a, shift]) == "1A a"


@given(ids_ | st.text(max_size=20).map(lambda text: VOCABULARY.encode(text).tolist()))
def test_streamed_increments_join_to_the_text(ids: list[int]) -> None:
    increments = list(VOCABULARY.decode_stream(ids))
    assert all(increments)
    assert "".join(increments) == VOCABULARY.decode(ids)


def test_a_stream_never_shows_half_a_character() -> None:
    increments = list(VOCABULARY.decode_stream(VOCABULARY.encode("Zoë 😀 Anna")))
    assert {"ë", "😀"} <= set(increments)
    assert not any(SHIFT in part or "\ufffd" in part for part in increments)


class TestLearning:
    def test_the_same_texts_give_the_same_pieces_in_any_script(self) -> None:
        sentences = [text.replace("о", "o") for text in topics.values()] + [
            "Съешь ещё этих мягких булок"
        ] * 99
        learned = Vocabulary.learn(sentences)
        assert learned.pieces == Vocabulary.learn(sentences).pieces
        assert len(learned.pieces) == PIECES and learned.fingerprint != VOCABULARY.fingerprint
        for text in ("Съешь ЕЩЁ булок", "plain English\n", "中"):
            assert learned.decode(learned.encode(text)) == text
        assert len(learned.encode("Ещё")) <= 4  # a shift and three letters, where the packaged one needs 18

    def test_too_little_text_is_refused(self) -> None:
        with pytest.raises(CellularError, match="more of them"):
            Vocabulary.learn(["hello"])


class TestFiles:
    def test_a_saved_vocabulary_is_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "v.json").write_bytes(VOCABULARY.to_json())
        again = Vocabulary.from_file(tmp_path / "v.json")
        assert again.pieces == VOCABULARY.pieces and again.fingerprint == VOCABULARY.fingerprint

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[]", "format"),
            (b'{"format": 2}', "format"),
            (b'{"format": 1}', "254"),
            (b'{"format": 1, "pieces": 7}', "254"),
            (b'{"format": 1, "pieces": ["a", 5]}', "254"),
            (json.dumps({"format": 1, "pieces": [*VOCABULARY.pieces[:-1], "xÿz"]}).encode(), "'ÿ'"),
            (json.dumps({"format": 1, "pieces": [*VOCABULARY.pieces[:-1], "\0"]}).encode(), "x00"),
            (json.dumps({"format": 1, "pieces": [*VOCABULARY.pieces[:-1], "a"]}).encode(), "254"),
        ],
    )
    def test_damaged_ones_are_refused_in_one_line(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "v.json").write_bytes(content)
        with pytest.raises(CellularError, match=message) as error:
            Vocabulary.from_file(tmp_path / "v.json")
        assert "\n" not in str(error.value)

    def test_a_missing_one_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CellularError, match="No such file"):
            Vocabulary.from_file(tmp_path / "v.json")
