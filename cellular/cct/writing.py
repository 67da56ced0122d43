"""The decoder of text to text, run piece by piece: an engine as RET's are, driven by their generation.

Shapes as in `decoder`; Y layers, H heads, K numbers of a head.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.cct.decoder import Decoder
from cellular.cct.layers import Layer, Rotary, position_codes, rotary_table
from cellular.decoders.ret.generation import greedy, select_filled
from cellular.decoders.ret.model import normalise
from cellular.decoders.ret.vocabulary import PieceArray
from cellular.types import FloatArray


@dataclass
class Cache:
    """Keys and values of every layer, in memory that is taken once; `length` positions are filled."""

    keys_YBHTK: Tensor
    values_YBHTK: Tensor
    prefix_BPD: Tensor
    codes_LD: Tensor
    rotary: Rotary
    length: int = 0


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
            keys_YBHTK=prefix_BPD.new_empty(shape),
            values_YBHTK=prefix_BPD.new_empty(shape),
            prefix_BPD=prefix_BPD,
            codes_LD=position_codes(max_pieces, config.hidden, prefix_BPD),
            rotary=rotary_table(positions, decoder.head_width, prefix_BPD),
        )
        return cache, self._advance(cache, normalise(prefix_BPD, decoder.input_norm))

    @torch.inference_mode()
    def step(self, state: Cache, ids_B: Tensor) -> Tensor:
        """As `Engine.step`."""
        place = state.length - self._decoder.config.slots
        codes_LD = state.codes_LD[place : place + 1]
        return self._advance(state, self._decoder.piece_inputs(state.prefix_BPD, ids_B[:, None], codes_LD))

    def _advance(self, cache: Cache, x_BTD: Tensor) -> Tensor:
        """Logits after the last of T new positions."""
        start = cache.length
        end = cache.length = start + x_BTD.shape[1]
        cosine, sine = cache.rotary
        rotary = cosine[start:end], sine[start:end]
        for layer, keys_BHTK, values_BHTK in zip(
            self._layers, cache.keys_YBHTK, cache.values_YBHTK, strict=True
        ):
            query, keys_BHTK[:, :, start:end], values_BHTK[:, :, start:end] = layer.attention_inputs(
                x_BTD, rotary
            )
            y_BHTK = F.scaled_dot_product_attention(
                query, keys_BHTK[:, :, :end], values_BHTK[:, :, :end], is_causal=start == 0
            )
            x_BTD = layer.output(x_BTD, y_BHTK)
        return self._decoder.logits(x_BTD[:, -1:])[:, 0]

    @torch.inference_mode()
    def select(self, state: Cache, rows_R: Tensor) -> Cache:
        """As `Engine.select`."""
        return replace(
            state,
            keys_YBHTK=select_filled(state.keys_YBHTK, rows_R, state.length),
            values_YBHTK=select_filled(state.values_YBHTK, rows_R, state.length),
            prefix_BPD=state.prefix_BPD[rows_R],
        )

    def greedy(self, embeddings_BE: FloatArray, max_pieces: int) -> list[PieceArray]:
        """As `Engine.greedy`."""
        return greedy(self, embeddings_BE, max_pieces)
