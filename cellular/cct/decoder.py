"""One vector to text: a causal transformer whose first states are the parts of the vector.

Shapes: B texts, E = P W embedding dimension, P slots of W numbers, L pieces, T = P + L positions, D hidden,
V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.cct.config import CCTConfig
from cellular.cct.layers import Layer, position_codes, rotary_table
from cellular.decoders.ret.model import VOCABULARY, normalise


class Decoder(nn.Module):
    """Embeddings to logits of pieces; `writing` runs it piece by piece. Input and output share a table."""

    def __init__(self, config: CCTConfig) -> None:
        super().__init__()
        hidden, width = config.hidden, config.embedding_dimension // config.slots
        self.config = config
        self.pieces = nn.Parameter(0.02 * torch.randn(VOCABULARY, hidden))
        self.slots_ED = nn.Parameter(torch.randn(config.embedding_dimension, hidden) / width**0.5)
        self.slot_codes_PD = nn.Parameter(torch.randn(config.slots, hidden))
        self.prefix_gain = nn.Parameter(torch.ones(hidden))
        self.position_gain = nn.Parameter(torch.full((hidden,), 0.3))
        self.input_norm = nn.Parameter(torch.ones(hidden))
        self.layers = nn.ModuleList(
            Layer(hidden, config.heads, config.inner, config.decoder_layers)
            for _ in range(config.decoder_layers)
        )
        self.output_norm = nn.Parameter(torch.ones(hidden))
        self.output_bias = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, embeddings_BE: Tensor, pieces_BL: Tensor) -> Tensor:
        """Logits of the next piece after the slots and after each piece.

        Args:
            embeddings_BE: (B, E) floating, unit length.
            pieces_BL: (B, L) int64.

        Returns:
            (B, L + 1, V) float32: row 0 is for the first piece.
        """
        return self.logits(self.states(embeddings_BE, pieces_BL))

    def states(self, embeddings_BE: Tensor, pieces_BL: Tensor) -> Tensor:
        """(B, L + 1, D) states after the last layer, from the last slot on."""
        prefix_BPD = self.prefix(embeddings_BE)
        codes_LD = position_codes(pieces_BL.shape[1], self.config.hidden, prefix_BPD)
        pieces_BLD = self.piece_inputs(prefix_BPD, pieces_BL, codes_LD)
        x_BTD = torch.cat([normalise(prefix_BPD, self.input_norm), pieces_BLD], 1)
        rotary = rotary_table(x_BTD.shape[1], self.head_width, x_BTD)
        for layer in self.layers:
            x_BTD = layer(x_BTD, rotary)
        return x_BTD[:, self.config.slots - 1 :]

    @property
    def head_width(self) -> int:
        """K: numbers of a head."""
        return self.config.hidden // self.config.heads

    def prefix(self, embeddings_BE: Tensor) -> Tensor:
        """(B, P, D) states, before their norm: each slot by a map of its own."""
        slots = self.config.slots
        scaled = embeddings_BE.to(self.slots_ED.dtype) * self.config.embedding_dimension**0.5
        slots_BPW = torch.unflatten(scaled, -1, (slots, -1))
        maps_PWD = torch.unflatten(self.slots_ED, 0, (slots, -1))
        return torch.einsum("bpw,pwd->bpd", slots_BPW, maps_PWD) + self.slot_codes_PD

    def piece_inputs(self, prefix_BPD: Tensor, pieces_BL: Tensor, codes_LD: Tensor) -> Tensor:
        """(B, L, D) states of pieces with codes of their places; the mean slot is added to each."""
        x_BLD = F.embedding(pieces_BL, self.pieces) * self.config.hidden**0.5
        x_BLD = x_BLD + self.position_gain * codes_LD
        return normalise(x_BLD + self.prefix_gain * prefix_BPD.mean(1, keepdim=True), self.input_norm)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """(B, T, V) float32 scores of the next piece."""
        scores: Tensor = F.linear(normalise(x_BTD, self.output_norm), self.pieces).float()
        return scores * (4 / math.sqrt(self.config.hidden)) + self.output_bias
