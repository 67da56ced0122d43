"""TextToText: texts to texts through the lattice, with no teacher and no bank.

Shapes: N texts, S pieces of the longest, E embedding dimension.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cellular.cct.checkpoint import DEFAULT_CHECKPOINT, load_text_to_text
from cellular.cct.model import CCT
from cellular.cct.writing import Writer
from cellular.checks import check_embeddings
from cellular.decoders.ret.generation import MAX_PIECES, generate, likeliest
from cellular.decoders.ret.vocabulary import END, PieceArray, Vocabulary
from cellular.types import FloatArray

MAX_SOURCE = 1024  # pieces of a text that is read: attention takes the square of it

_ROWS = 64  # texts at a time, of like length


class TextToText:
    """Reads texts, lets the lattice work on what they say, and writes what comes out.

    An answer depends on its text and the arguments alone. Safe for several threads. Lengths are in pieces, of
    which English has about one for two characters. Methods raise ValueError for what is not a string, a lone
    surrogate, a text of more than MAX_SOURCE pieces, an unknown task, and a length below 1.

    Args:
        model: set to evaluate; on its device.
        vocabulary: the pieces it was trained on.
    """

    def __init__(self, model: CCT, vocabulary: Vocabulary) -> None:
        self.model, self.vocabulary = model, vocabulary
        self._writer = Writer(model.decoder)

    @staticmethod
    def load(name_or_folder: Path | str = DEFAULT_CHECKPOINT) -> "TextToText":
        """The model of a checkpoint.

        Args:
            name_or_folder: one that comes with the package, or a folder that `save_text_to_text` wrote.

        Raises:
            CellularError: no such checkpoint, or a damaged file.
        """
        checkpoint = load_text_to_text(name_or_folder)
        return TextToText(checkpoint.model, checkpoint.vocabulary)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it has learned to do; the first is the default."""
        return self.model.config.tasks

    def generate(
        self, texts: Sequence[str], max_length: int = MAX_PIECES, task: str | None = None
    ) -> list[str]:
        """What each text becomes, the likeliest piece at each position.

        Args:
            texts: N of them.
            max_length: pieces after which an answer is cut off.
            task: one of `tasks`; None: the first.
        """
        return self.decode(self.transform(self.encode(texts), task), max_length)

    def stream(self, text: str, max_length: int = MAX_PIECES, task: str | None = None) -> Iterator[str]:
        """The text that `generate` gives, as it is written: increments that never end inside a character."""
        rows_NE = self.transform(self.encode([text]), task)
        positions = generate(self._writer, rows_NE, _positive(max_length), likeliest)
        return self.vocabulary.decode_stream(int(position.ids_R[0]) for position in positions)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> FloatArray:
        """What the encoder reads in texts: (N, E) float32 of unit length, which the lattice is given."""
        pieces = self.vocabulary.encode_batch(texts)
        for number, ids in enumerate(pieces):
            if len(ids) > MAX_SOURCE:
                raise ValueError(f"texts[{number}] has {len(ids)} pieces: give at most {MAX_SOURCE}")
        result_NE = np.empty((len(pieces), self.model.config.embedding_dimension), np.float32)
        by_length = sorted(range(len(pieces)), key=lambda number: len(pieces[number]))
        for start in range(0, len(by_length), _ROWS):
            some = by_length[start : start + _ROWS]
            sources_BS = self._padded([pieces[number] for number in some])
            result_NE[some] = self.model.encoder(sources_BS).cpu().numpy()
        return result_NE

    @torch.inference_mode()
    def transform(self, embeddings: ArrayLike, task: str | None = None) -> FloatArray:
        """What the lattice makes of embeddings.

        Args:
            embeddings: (N, E) floating, as `encode` gives them.
            task: one of `tasks`; None: the first.

        Returns:
            (N, E) float32 of unit length.
        """
        number = self._task(task)
        rows_NE = check_embeddings(embeddings, self.model.config.embedding_dimension)
        result_NE = np.empty_like(rows_NE)
        for start in range(0, len(rows_NE), _ROWS):
            some = slice(start, start + _ROWS)
            tasks_B = torch.full((len(rows_NE[some]),), number, device=self._device)
            rows_BE = torch.tensor(rows_NE[some], device=self._device)
            result_NE[some] = self.model.transform(rows_BE, tasks_B).cpu().numpy()
        return result_NE

    def decode(self, embeddings: ArrayLike, max_length: int = MAX_PIECES) -> list[str]:
        """The texts of embeddings (N, E) that left the lattice."""
        rows_NE = check_embeddings(embeddings, self.model.config.embedding_dimension)
        return [
            self.vocabulary.decode(ids)
            for start in range(0, len(rows_NE), _ROWS)
            for ids in self._writer.greedy(rows_NE[start : start + _ROWS].copy(), _positive(max_length))
        ]

    @property
    def _device(self) -> torch.device:
        return self.model.tasks.device

    def _padded(self, pieces: Sequence[PieceArray]) -> Tensor:
        """(B, S) int64: texts with END behind each."""
        ids_BS = np.full((len(pieces), max(map(len, pieces)) + 1), END, np.int64)
        for row, ids in zip(ids_BS, pieces, strict=True):
            row[: len(ids)] = ids
        return torch.from_numpy(ids_BS).to(self._device)

    def _task(self, task: str | None) -> int:
        if task is None:
            return 0
        if task not in self.tasks:
            raise ValueError(f"no task {task!r}: this model has {', '.join(self.tasks)}")
        return self.tasks.index(task)


def _positive(max_length: int) -> int:
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, not {max_length}")
    return max_length
