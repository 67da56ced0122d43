"""What the compiled engines share: the model's arrays, and the keys and values of texts being written.

Shapes: B texts, R rows of them, E embedding dimension, P prefix states, D hidden, T positions, K of a head,
A applications, V vocabulary, L pieces.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellular.decoders.ret.model import HIDDEN, RET, rotary_table
from cellular.decoders.ret.weights import Precision
from cellular.errors import CellularError
from cellular.types import FloatArray, IntArray

PieceArray = NDArray[np.uint8]
CacheArray = NDArray[np.float16] | NDArray[np.float32]
LOGIT_SCALE = 4 / HIDDEN**0.5  # RET.logits'


@dataclass
class CompiledState:
    """B texts as far as they are written."""

    offsets_BD: FloatArray
    """What the embedding adds to each piece of its text."""
    cache_BA2TD: CacheArray
    """Keys and values of every application."""
    position: int = 0
    """Positions that are filled."""


class CompiledEngine(ABC):
    """An engine whose loops run outside Python: on the calling thread alone, without the interpreter's lock.

    A text's answer does not depend on the texts beside it.

    Raises:
        CellularError: the engine does not have that precision.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[Precision, ...]]

    def __init__(self, model: RET, precision: Precision = "fp32") -> None:
        if precision not in self.precisions:
            offered = ", ".join(self.precisions)
            raise CellularError(
                f"engine {self.name!r} has no precision {precision!r}: choose among {offered}"
            )
        self.precision = precision
        self.cache_type: type[np.float16] | type[np.float32] = np.float32
        self._model = model
        self._prefix_gain_D = to_array(model.prefix_gain)
        self._pieces_VD = to_array(model.pieces * HIDDEN**0.5)

    def start(self, embeddings_BE: FloatArray, max_pieces: int) -> tuple[CompiledState, Tensor]:
        """As `Engine.start`."""
        prefix_BPD, offsets_BD = self._prefix(embeddings_BE)
        batch, prefixes, _ = prefix_BPD.shape
        shape = (batch, self._model.config.applications, 2, prefixes + max_pieces, HIDDEN)
        state = CompiledState(offsets_BD, np.empty(shape, self.cache_type))
        for number in range(prefixes):
            logits_BV = self._advance(state, np.ascontiguousarray(prefix_BPD[:, number]))
        return state, logits_BV

    def step(self, state: CompiledState, ids_B: Tensor) -> Tensor:
        """As `Engine.step`."""
        return self._advance(state, self._pieces_VD[ids_B.numpy()] + state.offsets_BD)

    def select(self, state: CompiledState, rows_R: Tensor) -> CompiledState:
        """As `Engine.select`."""
        rows, position, cache = rows_R.numpy(), state.position, state.cache_BA2TD
        if len(rows) <= len(cache):  # in place: fresh memory costs more than what is copied
            changed = np.flatnonzero(rows != np.arange(len(rows)))
            cache[changed, :, :, :position] = cache[rows[changed], :, :, :position]
            return CompiledState(state.offsets_BD[rows], cache[: len(rows)], position)
        wider = np.empty((len(rows), *cache.shape[1:]), cache.dtype)
        wider[..., :position, :] = cache[rows, :, :, :position]
        return CompiledState(state.offsets_BD[rows], wider, position)

    def greedy(self, embeddings_BE: FloatArray, max_pieces: int) -> list[PieceArray]:
        """As `Engine.greedy`."""
        prefix_BPD, offsets_BD = self._prefix(embeddings_BE)
        ids_BL = np.empty((len(prefix_BPD), max_pieces), np.uint8)
        lengths_B = np.zeros(len(prefix_BPD), np.int64)
        self._write(prefix_BPD, offsets_BD, ids_BL, lengths_B)
        return [ids_L[:length] for ids_L, length in zip(ids_BL, lengths_B, strict=True)]

    def _prefix(self, embeddings_BE: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(B, P, D) prefix states and the (B, D) offsets of pieces."""
        with torch.inference_mode():
            prefix_BPD = to_array(self._model.prefix(torch.from_numpy(embeddings_BE)))
        return prefix_BPD, self._prefix_gain_D * prefix_BPD.mean(1)

    def _advance(self, state: CompiledState, inputs_BD: FloatArray) -> Tensor:
        """Fill one more position of each text; (B, V) logits after it."""
        logits_BV = self._forward(state.cache_BA2TD, state.position, inputs_BD)
        state.position += 1
        return torch.from_numpy(logits_BV)

    @abstractmethod
    def _forward(self, cache_BA2TD: CacheArray, position: int, inputs_BD: FloatArray) -> FloatArray:
        """Logits (B, V) after one position of each text, whose keys and values go to the cache.

        Args:
            cache_BA2TD: filled up to the position.
            position: counted from 0.
            inputs_BD: not yet normalised.
        """

    @abstractmethod
    def _write(
        self, prefix_BPD: FloatArray, offsets_BD: FloatArray, ids_BL: PieceArray, lengths_B: IntArray
    ) -> None:
        """Write greedy texts to `ids_BL` and their numbers of pieces to `lengths_B`."""


def to_array(tensor: Tensor) -> FloatArray:
    """A contiguous float32 array."""
    array: FloatArray = tensor.detach().float().cpu().contiguous().numpy()
    return array


@lru_cache(8)
def rotary_arrays(positions: int) -> tuple[FloatArray, FloatArray]:
    """Cosines and sines for a head's first half, (T, K / 2) each; its second half turns alike."""
    cosine_TK, sine_TK = rotary_table(positions, torch.device("cpu"), torch.float32)
    half = cosine_TK.shape[1] // 2
    return to_array(cosine_TK[:, :half]), to_array(sine_TK[:, :half])
