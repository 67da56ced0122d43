"""From phrases to a text: joins, punctuation, casing, repeated phrases. No word is ever changed."""

import re
from collections.abc import Sequence

_WORDS = re.compile(r"\w+")
TERMINAL = (".", "!", "?", "…", "。", "！", "？", "؟", "।", ":", ";")
_CLOSING = "\"'”’»)]}"


def words(text: str) -> list[str]:
    """The words of a text, case-folded, without punctuation."""
    return _WORDS.findall(text.casefold())


def join_phrases(phrases: Sequence[str]) -> str:
    """One text out of phrases in reading order.

    A phrase alone stays as the corpus has it. Of several, those that say the same words again are dropped,
    each but the last ends in punctuation, and each begins as a sentence does.
    """
    if len(phrases) == 1:
        return phrases[0]
    unique = list({tuple(words(phrase)) or phrase: phrase for phrase in reversed(phrases)}.values())[::-1]
    if len(unique) == 1:
        return unique[0]
    return " ".join(
        [_terminated(_capitalised(phrase)) for phrase in unique[:-1]] + [_capitalised(unique[-1])]
    )


def _terminated(phrase: str) -> str:
    phrase = phrase.rstrip(" ,-–—")
    return phrase if phrase.rstrip(_CLOSING).endswith(TERMINAL) else phrase + "."


def _capitalised(phrase: str) -> str:
    first, capital = phrase.split(" ", 1)[0], phrase[0].upper()
    keeps_word = first.islower() and capital.casefold() == phrase[0].casefold()  # not so of Turkish ı
    return capital + phrase[1:] if keeps_word else phrase  # "iPhone" stays
