"""256 pieces that write any text: 254 learned ones, and an escape that spells the rest byte by byte.

Pieces are cut from *marked* text: a space becomes SPACE, a capital its small letter behind SHIFT. Whatever
the pieces cannot write, the two marks themselves included, is spelled as ESCAPE and two nibbles a byte.

Byte pair encoding chooses the pieces (Sennrich et al. 2016); a shortest path over them, not the merges, cuts
a text (Kudo 2018), so that no other cut of the marked text has fewer pieces.
"""

import codecs
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from cellular.errors import CellularError
from cellular.teachers import check_texts

PieceArray = NDArray[np.uint8]

END, ESCAPE = 0, 1
FIRST_PIECE = 2  # ids 2 to 17, behind an escape, are the nibbles 0 to 15
SHIFT, SPACE = "\u2191", "\u2581"  # ↑ ▁
PIECES = 254

_FORMAT = 1
_PACKAGED = Path(__file__).with_name("vocabulary.json")
_UNKNOWN = "\0"  # stands for a character that is spelled; tokenizer id 0, as ids are one less there
_SHIFTED = re.compile(f"{SHIFT}+(.?)", re.DOTALL)
_INVALID = "\ufffd"
_WINDOW = 10_000  # texts handed to the tokenizer at a time: its results are large
_MIN_SHARE = 1e-5  # of a corpus' characters, below which one gets no piece
_MAX_ALPHABET = 192  # characters with a piece of their own, so that pairs are learned in any script


class Vocabulary:
    """Text to piece ids and back, without loss. Immutable; safe for several threads.

    Args:
        pieces: the 254 pieces of ids 2 to 255, as marked text.

    Raises:
        CellularError: they are not 254 different ones that can write the marks and one another's characters.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        _check_pieces(self.pieces)
        self._marked = _Marking(piece for piece in self.pieces if len(piece) == 1)
        self._written = ("", "", *self.pieces)
        self._written_in_rows = ("", _UNKNOWN, *self.pieces)  # the escape's place ends a row

    @staticmethod
    @cache
    def load() -> "Vocabulary":
        """The packaged one, learned from English sentences."""
        return Vocabulary.from_file(_PACKAGED)

    @staticmethod
    def from_file(path: Path | str) -> "Vocabulary":
        """One that `to_json` wrote.

        Raises:
            CellularError: no such file, or not a vocabulary.
        """
        try:
            content = json.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise CellularError(f"cannot read the vocabulary {path}: {error.strerror}") from error
        except ValueError as error:
            raise CellularError(f"{path} is not JSON: restore it from where the checkpoint came") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise CellularError(f"{path} is no vocabulary of format {_FORMAT}: use the release that wrote it")
        pieces = content.get("pieces")
        return Vocabulary(pieces if isinstance(pieces, list) else ())

    @staticmethod
    def learn(texts: Iterable[str]) -> "Vocabulary":
        """The pieces that byte pair encoding finds in a corpus; rare characters are left to the escape.

        Raises:
            CellularError: too little text for 254 pieces.
        """
        marked = [_mark_for_learning(text) for text in texts]
        counts = Counter(character for text in marked for character in text)
        least = _MIN_SHARE * counts.total()
        alphabet = {character for character, n in counts.most_common(_MAX_ALPHABET) if n > least}
        rare = {ord(character): None for character in {*counts, _UNKNOWN} - alphabet - {SHIFT, SPACE}}
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        trainer = trainers.BpeTrainer(
            vocab_size=PIECES, show_progress=False, initial_alphabet=[SHIFT, SPACE], special_tokens=[]
        )
        tokenizer.train_from_iterator((text.translate(rare) for text in marked), trainer)
        learned = tokenizer.get_vocab()
        if len(learned) < PIECES:
            raise CellularError(f"the texts give {len(learned)} pieces, not {PIECES}: give more of them")
        return Vocabulary(sorted(learned, key=learned.__getitem__))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the pieces' hash."""
        return hashlib.sha256(json.dumps(self.pieces).encode()).hexdigest()[:16]

    def to_json(self) -> bytes:
        """The content of a file for `from_file`."""
        return (json.dumps({"format": _FORMAT, "pieces": self.pieces}, ensure_ascii=False) + "\n").encode()

    def encode(self, text: str) -> PieceArray:
        """Ids of a text, (L,) uint8 without END; the fewest that write it.

        Raises:
            ValueError: not a string, or one with a lone surrogate.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[PieceArray]:
        """Ids of each text.

        Raises:
            ValueError: one of them is not a string, or has a lone surrogate.
        """
        check_texts(texts)
        windows = (texts[start : start + _WINDOW] for start in range(0, len(texts), _WINDOW))
        return [ids for window in windows for ids in self._encode(window)]

    def _encode(self, texts: Sequence[str]) -> Iterator[PieceArray]:
        reversed_texts = [self._marked.reverse(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(reversed_texts, add_special_tokens=False)
        for text, encoding in zip(texts, encodings, strict=True):
            ids = np.array(encoding.ids, np.uint8)[::-1] + np.uint8(1)
            yield self._spell(text, ids) if ESCAPE in ids else ids

    def _spell(self, text: str, ids: PieceArray) -> PieceArray:
        """Put each unknown character's bytes where the ids say ESCAPE."""
        unknown = (character for character in text if character not in self._marked)
        spelled: list[int] = []
        for id_ in ids.tolist():
            spelled += _spell_bytes(next(unknown)) if id_ == ESCAPE else (id_,)
        return np.array(spelled, np.uint8)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """A shortest path over equal scores. Of equal paths it takes that with the longest last piece, which,
        read backwards, is the longest first one."""
        scored = [(piece[::-1], -1.0) for piece in (_UNKNOWN, *self.pieces)]
        return Tokenizer(models.Unigram(scored, None, False))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first END, whatever they are.

        Args:
            ids: 0 to 255 in any order; escapes without nibbles and bytes that are not UTF-8 give U+FFFD; a
                SHIFT before what has no capital is ignored.
        """
        sequence = bytes(map(int, ids)).partition(b"\0")[0]
        return "".join(text for text, _ in self._runs(sequence))

    def decode_batch(self, ids_BL: PieceArray) -> list[str]:
        """The text of each row, as `decode` gives it, in a fraction of the time.

        Args:
            ids_BL: (B, L) uint8.
        """
        ended_BL = np.logical_or.accumulate(ids_BL == END, axis=1)
        rows_BL = np.where(ended_BL, np.uint8(END), ids_BL)
        spelled_B = (rows_BL == ESCAPE).any(axis=1)
        rows_BL[spelled_B] = END
        closed_BL = np.pad(rows_BL, ((0, 0), (0, 1)), constant_values=ESCAPE)
        marked = "".join(map(self._written_in_rows.__getitem__, closed_BL[closed_BL != END].tobytes()))
        texts = self._marked.read(marked).split(_UNKNOWN)[:-1]
        for row in np.flatnonzero(spelled_B).tolist():
            texts[row] = self.decode(ids_BL[row])
        return texts

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in non-empty increments whose join is `decode`'s.

        An increment never ends inside a character, nor behind a SHIFT.
        """
        pending = bytearray()
        for id_ in ids:
            if id_ == END:
                break
            pending.append(id_)
            runs = list(self._runs(bytes(pending)))
            if runs[-1][1]:
                pending.clear()
                if text := "".join(text for text, _ in runs):
                    yield text
        if pending and (text := self.decode(pending)):
            yield text

    def _runs(self, ids: bytes) -> Iterator[tuple[str, bool]]:
        """The text of each run of pieces and run of spelled bytes; false where more could change it."""
        for match in _RUNS.finditer(ids):
            if match["pieces"]:
                marked = "".join(map(self._written.__getitem__, match["pieces"]))
                yield self._marked.read(marked), not marked.endswith(SHIFT)
            elif match["bytes"]:
                yield _read_bytes(match["bytes"])
            else:
                rest = "".join(map(self._written.__getitem__, match["nibble"] or b""))
                yield _INVALID + self._marked.read(rest), match["nibble"] is None


class _Marking:
    """Marked text and back, over the characters that have a piece of their own."""

    def __init__(self, alphabet: Iterable[str]) -> None:
        own = set(alphabet)
        self._capitals = {small: capital for small in own if (capital := _capital(small))}
        shifted = {capital: small + SHIFT for small, capital in self._capitals.items() if capital not in own}
        self._table = _Reversal({ord(character): character for character in own - {SHIFT, SPACE}})
        self._table |= {ord(character): marked for character, marked in shifted.items()} | {ord(" "): SPACE}

    def __contains__(self, character: str) -> bool:
        return ord(character) in self._table

    def reverse(self, text: str) -> str:
        """Marked text, last character first."""
        return text[::-1].translate(self._table)

    def read(self, marked: str) -> str:
        """The text that marked text stands for."""
        return _SHIFTED.sub(self._shift, marked).replace(SPACE, " ")

    def _shift(self, match: re.Match[str]) -> str:
        return self._capitals.get(match[1], match[1])


class _Reversal(dict[int, str]):
    def __missing__(self, _: int) -> str:
        return _UNKNOWN


# Pieces; complete escapes; one that the end cuts off; a broken one.
_RUNS = re.compile(
    rb"(?P<pieces>[^\x01]+)|(?P<bytes>(?:\x01[\x02-\x11]{2})+)|\x01(?P<nibble>[\x02-\x11]?)\Z|\x01"
)


def _capital(small: str) -> str | None:
    """The capital of a small letter, where each leads to the other and both are one character."""
    capital = small.upper()
    return capital if len(capital) == 1 and capital != small and capital.lower() == small else None


def _mark_for_learning(text: str) -> str:
    marked = (SHIFT + character.lower() if _shifts(character) else character for character in text)
    return "".join(marked).replace(" ", SPACE)


def _shifts(character: str) -> bool:
    return character.isupper() and _capital(character.lower()) == character


def _spell_bytes(character: str) -> list[int]:
    return [
        id_
        for byte in character.encode()
        for id_ in (ESCAPE, FIRST_PIECE + (byte >> 4), FIRST_PIECE + (byte & 15))
    ]


def _read_bytes(escapes: bytes) -> tuple[str, bool]:
    """The text of complete escapes, and whether its last character is complete."""
    nibbles = np.frombuffer(escapes, np.uint8).reshape(-1, 3)[:, 1:] - FIRST_PIECE
    data = (nibbles[:, 0] << 4 | nibbles[:, 1]).tobytes()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    rest = decoder.decode(b"", final=True)
    return text + rest, not rest


def _check_pieces(pieces: tuple[str, ...]) -> None:
    if not all(isinstance(piece, str) and piece for piece in pieces) or len(set(pieces)) != PIECES:
        raise CellularError(f"a vocabulary needs {PIECES} different pieces: this one has {len(set(pieces))}")
    for character in sorted({SHIFT, SPACE, *"".join(pieces)}):
        if character not in pieces or character == _UNKNOWN:
            raise CellularError(f"a vocabulary cannot hold {character!r} without it being a piece of its own")
