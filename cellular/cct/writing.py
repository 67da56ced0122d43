"""The decoder of text to text, run piece by piece: an engine as RET's are, driven by their generation.

Shapes as in `decoder`; its A layers are what applications are to RET.
"""

import torch
from torch import Tensor

from cellular.cct.decoder import Decoder
from cellular.cct.layers import Layer, position_codes, rotary_table
from cellular.decoders.ret.generation import Cache, greedy
from cellular.decoders.ret.model import normalise
from cellular.decoders.ret.vocabulary import PieceArray
from cellular.types import FloatArray


class Writer:
    """Eager PyTorch with a cache of keys and values, in the weights' precision and on their device."""

    name = "torch"

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._layers = [layer for layer in decoder.layers if isinstance(layer, Layer)]

    @torch.inference_mode()
    def start(self, embeddings_BE: FloatArray, max_pieces: int) -> tuple[Cache, Tensor]:
        """As `Engine.start`; the embeddings are what left the lattice."""
        decoder, config = self._decoder, self._decoder.config
        prefix_BPD = decoder.prefix(torch.from_numpy(embeddings_BE).to(decoder.pieces.device))
        batch, positions = len(prefix_BPD), config.slots + max_pieces
        shape = (len(self._layers), batch, config.heads, positions, decoder.head_width)
        cache = Cache(
            keys_ABHTK=prefix_BPD.new_empty(shape),
            values_ABHTK=prefix_BPD.new_empty(shape),
            prefix_BPD=prefix_BPD,
            codes=position_codes(max_pieces, config.hidden, prefix_BPD),
            rotary=rotary_table(positions, decoder.head_width, prefix_BPD),
        )
        return cache, self._advance(cache, normalise(prefix_BPD, decoder.input_norm))

    @torch.inference_mode()
    def step(self, state: Cache, ids_B: Tensor) -> Tensor:
        """As `Engine.step`."""
        place = state.length - self._decoder.config.slots
        codes_LD = state.codes[place : place + 1]
        return self._advance(state, self._decoder.piece_inputs(state.prefix_BPD, ids_B[:, None], codes_LD))

    def _advance(self, cache: Cache, x_BTD: Tensor) -> Tensor:
        """Logits after the last of T new positions."""
        rotary = cache.extend(x_BTD.shape[1])
        for number, layer in enumerate(self._layers):
            y_BHTK = cache.attend(number, *layer.attention_inputs(x_BTD, rotary))
            x_BTD = layer.output(x_BTD, y_BHTK)
        return self._decoder.logits(x_BTD[:, -1:])[:, 0]

    def select(self, state: Cache, rows_R: Tensor) -> Cache:
        """As `Engine.select`."""
        return state.select(rows_R)

    def greedy(self, embeddings_BE: FloatArray, max_pieces: int) -> list[PieceArray]:
        """As `Engine.greedy`."""
        return greedy(self, embeddings_BE, max_pieces)
