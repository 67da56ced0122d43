"""Post-processing never touches a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellular.decoders.postprocess import join_phrases, words

characters = st.characters(codec="utf-8", categories=["L", "Nd", "P", "Zs"])
phrase = st.text(characters, min_size=1, max_size=30).map(lambda text: " ".join(text.split())).filter(words)


@given(st.lists(phrase, min_size=1, max_size=4, unique_by=lambda text: tuple(words(text))))
def test_the_words_stay_in_their_order(phrases: list[str]) -> None:
    assert words(join_phrases(phrases)) == [word for text in phrases for word in words(text)]


@given(phrase)
def test_a_phrase_alone_stays_as_it_is(text: str) -> None:
    assert join_phrases([text]) == text


@pytest.mark.parametrize(
    ("phrases", "text"),
    [
        (["we met at noon", "it rained"], "We met at noon. It rained"),
        (["Really?", "Yes!"], "Really? Yes!"),
        (["he said “go.”", "so I went,"], "He said “go.” So I went,"),
        (["iPhone for sale", "e.g. a used one"], "iPhone for sale. E.g. a used one"),
        (["Thank you.", "thank you!", "Bye"], "Thank you. Bye"),
        (["first, ", "second"], "First. Second"),
        (["はい。", "そうです"], "はい。 そうです"),
        (["...", "!!"], "... !!"),
    ],
)
def test_joins(phrases: list[str], text: str) -> None:
    assert join_phrases(phrases) == text
