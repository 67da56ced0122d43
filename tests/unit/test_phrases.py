import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.config import PhraseRules
from cellular.phrases import keep, normalise, reject_reason, segment

TEXTS = st.text() | st.text(
    st.sampled_from("ab é.!?,;:()\"'\n\r\t\u00a0\u200b\u200d\u2029\u0301。，你好—-10"), max_size=80
)
# Characters that this Python's Unicode does not know yet may be letters to the rules.
PHRASES = TEXTS.map(normalise).filter(lambda text: text and "Cn" not in map(unicodedata.category, text))
CLAUSES = PhraseRules(units=("clause",))
SENTENCES = PhraseRules()


def visible(text: str) -> str:
    """What segmenting may not change: everything but white space."""
    return unicodedata.normalize("NFC", normalise(text).replace(" ", ""))


@settings(deadline=None)
@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a\t\n b\u00a0\u2003c\u2028d\x1fe\x85f ", "a b c d e f"),
        ("cafe\u0301", "café"),
        ("co\u00adope\u200bra\ufefftion\u2060", "cooperation"),
        ("e\u200b\u0301", "é"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a non-joiner is spelling in Persian
        ("👩\u200d🔬 ❤\ufe0f", "👩\u200d🔬 ❤\ufe0f"),
        ("a\x00b\x1bc", "a b c"),
        ("\u202eabc\u202c", "abc"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@settings(deadline=None)
@given(TEXTS)
def test_sentences_lose_and_invent_nothing(text: str) -> None:
    assert visible("".join(segment(text, SENTENCES))) == visible(text)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["One here. ", "Two, or 3.5 of them! ", "你好。", "no end ", "\n\n"]), max_size=1500
    )
)
def test_long_documents_lose_and_invent_nothing(parts: list[str]) -> None:
    text = "".join(parts)
    assert visible("".join(segment(text, SENTENCES))) == visible(text)


def test_windows_do_not_show() -> None:
    sentences = [f"Dr. Smith paid {number}.50 for it, did he?" for number in range(2000)]
    assert list(segment(" ".join(sentences), SENTENCES)) == sentences


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "en",
            "Mr. Smith left. “Why?” she asked.\nHe did not\nsay.",
            ["Mr. Smith left.", "“Why?” she asked.", "He did not say."],
        ),
        ("en", "A title\r\n\r\nA sentence.\n \nAnother", ["A title", "A sentence.", "Another"]),
        ("zh", "你好。我很好，谢谢。", ["你好。", "我很好，谢谢。"]),
        ("hi", "यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
        ("ar", "كيف حالك؟ أنا بخير.", ["كيف حالك؟", "أنا بخير."]),
        ("no-such-language", "One is. Two are.", ["One is.", "Two are."]),
        ("en", " \n\t\n ", []),
        ("en", "", []),
    ],
)
def test_sentences(language: str, text: str, expected: list[str]) -> None:
    assert list(segment(text, PhraseRules(language=language))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Although it rained, we went out; it was fun.",
            ["Although it rained", "we went out", "it was fun."],
        ),
        ("It cost 3,50 euros at 10:30 sharp.", ["It cost 3,50 euros at 10:30 sharp."]),
        ("The bill (it was late) came — at last.", ["The bill", "it was late", "at last."]),
        ("Call f(x) now, or open http://a.b/c,d today", ["Call f(x) now", "or open http://a.b/c,d today"]),
        ("A well-known 10–20 range - as they say", ["A well-known 10–20 range", "as they say"]),
        ("虽然下雨了，我们还是出去了。", ["虽然下雨了", "我们还是出去了。"]),
        ("رغم المطر، خرجنا معا", ["رغم المطر", "خرجنا معا"]),
        ("Yes, no.", []),
    ],
)
def test_clauses(text: str, expected: list[str]) -> None:
    assert list(segment(text, CLAUSES)) == expected


def test_ngrams_are_runs_of_words_within_a_sentence() -> None:
    rules = PhraseRules(units=("ngram",), ngram_words=(2, 3))
    phrases = list(segment("“One two,” three four! Five six.", rules))
    assert phrases == [
        "One two",
        "One two,” three",
        "two,” three",
        "two,” three four",
        "three four",
        "Five six.",
    ]


def test_units_agree_on_what_they_share() -> None:
    rules = PhraseRules(units=("sentence", "clause", "ngram"), ngram_words=(2, 4))
    assert list(segment("Only one clause.", rules)) == ["Only one clause.", "Only one", "one clause"]
    repeated = list(
        segment("So it goes, so it goes", PhraseRules(units=("clause", "ngram"), ngram_words=(3, 3)))
    )
    assert repeated.count("so it goes") == 1 and repeated.count("So it goes") == 1
    assert list(segment("go on, go on", PhraseRules(units=("clause", "clause")))) == ["go on", "go on"]


@settings(deadline=None)
@given(TEXTS)
def test_every_phrase_is_normalised_and_found_in_the_text(text: str) -> None:
    whole = normalise(text)
    for phrase in segment(text, PhraseRules(units=("sentence", "clause", "ngram"), ngram_words=(1, 3))):
        assert phrase and phrase == normalise(phrase)
        assert phrase in whole


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("ab", "too short"),
        ("a" + " long" * 60, "too long"),
        ("12 345 67", "few letters"),
        ("<=> :: //", "few letters"),
        ("aaaa ab", "repeated character"),
        ("A usual sentence.", None),
        ("हिन्दी में", None),  # vowel signs are marks, and count as letters do
        ("你好吗", None),
        ("Ça va, 10?", None),
    ],
)
def test_quality_rules(phrase: str, reason: str | None) -> None:
    assert reject_reason(phrase, SENTENCES) == reason
    assert keep(phrase, SENTENCES) is (reason is None)


@settings(deadline=None)
@given(phrase=PHRASES, letters=st.floats(0, 1), repeats=st.floats(0, 1))
def test_quality_fractions_are_what_they_say(phrase: str, letters: float, repeats: float) -> None:
    rules = PhraseRules(
        min_characters=1, max_characters=10_000, min_letter_fraction=letters, max_repeat_fraction=repeats
    )
    characters = [character for character in phrase if character != " "]
    count = sum(unicodedata.category(character)[0] in "LM" for character in characters)
    most = max(characters.count(character) for character in characters)
    expected = count >= letters * len(characters) and most <= repeats * len(characters)
    assert keep(phrase, rules) is expected


@pytest.mark.parametrize(
    "text", [", " * 100_000, ")" * 200_000 + "a", "a. " * 100_000, "。" * 100_000, "你好。" * 20_000]
)
def test_hostile_documents_take_linear_time(text: str) -> None:
    rules = PhraseRules(units=("sentence", "clause"))
    assert sum(reject_reason(phrase, rules) is None for phrase in segment(text, rules)) <= 20_000


def test_a_whole_record_is_one_phrase() -> None:
    rules = PhraseRules(units=("record",))
    assert list(segment("One. Two!\n\nThree,  four.", rules)) == ["One. Two! Three, four."]
    assert list(segment(" \n ", rules)) == []
    with pytest.raises(ValueError, match="record stands alone"):
        PhraseRules(units=("record", "clause"))
