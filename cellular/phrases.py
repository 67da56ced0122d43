"""Phrases of a document: normalised, segmented, and kept or dropped by rules that know no language."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import regex
import sentencex

from cellular.config import PhraseRules

DropReason = Literal["too short", "too long", "few letters", "repeated character"]
Span = tuple[int, int]  # [start, stop) in a sentence

WINDOW_CHARACTERS = 4_000
CLAUSE_WORDS = 2
CLAUSE_CHARACTERS = 4  # where words are not spaced

# Left out: zero width space, word joiner, byte order mark, soft hyphen, and embeddings and isolates of
# writing direction, whose pairs a segment would break. Joiners and variation selectors mean something: kept.
_INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")
_FOLDED = str.maketrans({**_INVISIBLE, **_CONTROLS})

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n|\u2029")
_NOT_LETTERS = regex.compile(r"[^\p{L}\p{M}]+")
_NOT_ASCII_LETTERS = bytes(byte for byte in range(128) if not chr(byte).isalpha())
_WORD = regex.compile(r"\w(?:\S*\w)?")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]")
# Between clauses: marks before a space (so that 3,50 and 10:30 stay whole), spaced dashes and parentheses,
# and the marks of scripts that do not put a space after them.
_CLAUSE_END = regex.compile(
    r"(?<![,;:،؛·])[,;:،؛·]++(?=\s|$)"
    r"|(?:^|\s)[-–—(\[]++\s?|\s?—++\s?"
    r"|[)\]](?=[\s,;:.!?]|$)(?<=(?:^|\s)[(\[][^()\[\]]*[)\]])[,;:]*+"  # not the one of f(x)
    r"|[，、；：（）——॥।։።፣፤፥]++"
)


def normalise(text: str) -> str:
    """NFC, with any white space folded to single spaces and invisible characters left out."""
    if not text.isprintable():
        text = text.translate(_FOLDED)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def segment(text: str, rules: PhraseRules) -> Iterator[str]:
    """The normalised phrases of a document, in order, before any are dropped.

    A stretch of a sentence that several units propose, such as its only clause, is one phrase.
    """
    if rules.units == ("record",):
        yield from filter(None, [normalise(text)])
        return
    sentences = (phrase for piece in _sentences(text, rules.language) if (phrase := normalise(piece)))
    if rules.units == ("sentence",):
        yield from sentences
        return
    for sentence in sentences:
        spans = (span for unit in dict.fromkeys(rules.units) for span in UNITS[unit](sentence, rules))
        for start, stop in dict.fromkeys(spans):
            yield sentence[start:stop]


def reject_reason(phrase: str, rules: PhraseRules) -> DropReason | None:
    """Why a normalised phrase is dropped, None if it is kept. Fractions are of its non-space characters."""
    if len(phrase) < rules.min_characters:
        return "too short"
    if len(phrase) > rules.max_characters:
        return "too long"
    characters = phrase.replace(" ", "")
    if _letters(characters) < rules.min_letter_fraction * len(characters):
        return "few letters"
    if _repeats(characters, rules.max_repeat_fraction * len(characters)):
        return "repeated character"
    return None


def keep(phrase: str, rules: PhraseRules) -> bool:
    """Whether a normalised phrase passes the rules."""
    return reject_reason(phrase, rules) is None


def _letters(characters: str) -> int:
    """The number of letters and marks (Unicode L and M)."""
    if characters.isascii():
        return len(characters.encode().translate(None, _NOT_ASCII_LETTERS))
    return len(_NOT_LETTERS.sub("", characters))


def _repeats(characters: str, most: float) -> bool:
    """Whether a character occurs more than `most` times: take out one by one until too few are left."""
    while len(characters) > most:
        others = characters.replace(characters[0], "")
        if len(characters) - len(others) > most:
            return True
        characters = others
    return False


def _sentences(text: str, language: str) -> Iterable[str]:
    """Sentences with the space around them. A blank line ends one."""
    if len(text) <= WINDOW_CHARACTERS and text.isprintable():
        pieces: list[str] = sentencex.segment(language, text)
        return pieces
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (piece for part in _PARAGRAPH.split(text) for piece in _windowed(part, language))


def _windowed(paragraph: str, language: str) -> Iterator[str]:
    """Sentences, window by window: sentencex takes time quadratic in the length of what it is given.

    A window holds at least as much new text as old, so that one endless sentence takes linear time as well.
    """
    start, rest = 0, ""
    while start < len(paragraph):
        stop = start + max(WINDOW_CHARACTERS, len(rest))
        *whole, rest = sentencex.segment(language, rest + paragraph[start:stop])
        yield from whole
        start = stop
    yield rest


def _sentence_spans(sentence: str, rules: PhraseRules) -> Iterator[Span]:
    yield 0, len(sentence)


def _clause_spans(sentence: str, rules: PhraseRules) -> Iterator[Span]:
    """The stretches between clause punctuation, which itself is left out."""
    start = 0
    for mark in _CLAUSE_END.finditer(sentence):
        yield from _clause(sentence, start, mark.start())
        start = mark.end()
    yield from _clause(sentence, start, len(sentence))


def _clause(sentence: str, start: int, stop: int) -> Iterator[Span]:
    text = sentence[start:stop]
    start, stop = start + len(text) - len(text.lstrip()), stop - (len(text) - len(text.rstrip()))
    if len(_WORD.findall(text)) >= CLAUSE_WORDS or len(_UNSPACED.findall(text)) >= CLAUSE_CHARACTERS:
        yield start, stop


def _ngram_spans(sentence: str, rules: PhraseRules) -> Iterator[Span]:
    """Runs of white-space separated words, without the punctuation around them unless all are in the run."""
    shortest, longest = rules.ngram_words
    words = [match.span() for match in _WORD.finditer(sentence)]
    if shortest <= len(words) <= longest:
        yield 0, len(sentence)
        longest = len(words) - 1
    for first in range(len(words)):
        for last in range(first + shortest - 1, min(first + longest, len(words))):
            yield words[first][0], words[last][1]


UNITS: dict[str, Callable[[str, PhraseRules], Iterator[Span]]] = {
    "sentence": _sentence_spans,
    "clause": _clause_spans,
    "ngram": _ngram_spans,
}
