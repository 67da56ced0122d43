"""RET v2.1: a causal transformer of exactly 722,944 parameters that writes the text of an embedding.

One layer, applied several times: Dehghani et al. 2018, Universal Transformers. Input and output pieces share
a table (Press & Wolf 2016), positions are rotary (Su et al. 2021), norms are RMS (Zhang & Sennrich 2019), the
activation is a squared ReLU (So et al. 2021), queries and keys are normalised (Dehghani et al. 2023).

Shapes: B texts, E embedding dimension, P prefix states (512 / 256 for a 384-d teacher), L pieces, T = P + L
positions, H heads, K = D / H, D hidden, F inner width of the MLP, V vocabulary, A applications.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from cellular.config import Settings

HIDDEN, HEADS, INNER, VOCABULARY = 256, 2, 384, 256
PARAMETERS = 722_944
_EPSILON = 1e-6
_ROTARY_BASE = 10_000.0


class RETConfig(Settings):
    """Shape of the decoder. Neither setting changes the number of parameters."""

    embedding_dimension: Literal[384, 768] = Field(384, description="384: two prefix states; 768: one")
    applications: PositiveInt = Field(8, description="times that the layer is applied to each position")

    @property
    def prefix_states(self) -> int:
        """P: positions before the first piece."""
        return 768 // self.embedding_dimension


class RET(nn.Module):
    """The decoder's weights and its full pass; `generation` runs it piece by piece."""

    def __init__(self, config: RETConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RETConfig()
        depth = (2 * config.applications) ** -0.5
        inputs, width = config.embedding_dimension, config.prefix_states * HIDDEN
        self.pieces = nn.Parameter(0.02 * torch.randn(VOCABULARY, HIDDEN))
        self.projection = nn.Parameter(torch.randn(width, inputs) / inputs**0.5)
        self.query_key_value = nn.Parameter(torch.randn(3 * HIDDEN, HIDDEN) / HIDDEN**0.5)
        self.attention_out = nn.Parameter(depth * torch.randn(HIDDEN, HIDDEN) / HIDDEN**0.5)
        self.mlp_in = nn.Parameter(torch.randn(INNER, HIDDEN) / HIDDEN**0.5)
        self.mlp_out = nn.Parameter(depth * torch.randn(HIDDEN, INNER) / INNER**0.5)
        self.input_norm = nn.Parameter(torch.ones(HIDDEN))
        self.attention_norm = nn.Parameter(torch.ones(HIDDEN))
        self.mlp_norm = nn.Parameter(torch.ones(HIDDEN))
        self.output_norm = nn.Parameter(torch.ones(HIDDEN))
        self.prefix_gain = nn.Parameter(torch.ones(HIDDEN))
        self.step_gain = nn.Parameter(torch.zeros(2, HIDDEN))
        self.output_bias = nn.Parameter(torch.zeros(VOCABULARY))

    def _count_parameters(self) -> int:
        """Number of parameters, tied ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, embeddings_BE: Tensor, pieces_BL: Tensor) -> Tensor:
        """Logits of the next piece after the prefix and after each piece.

        Args:
            embeddings_BE: (B, E) float, unit norm.
            pieces_BL: (B, L) int64.

        Returns:
            (B, L + 1, V) float32: row 0 is for the first piece.
        """
        return self.logits(self.states(embeddings_BE, pieces_BL)[:, self.config.prefix_states - 1 :])

    def states(self, embeddings_BE: Tensor, pieces_BL: Tensor) -> Tensor:
        """(B, T, D) states after the last application, of the prefix and of each piece."""
        x_BTD = self.inputs(self.prefix(embeddings_BE), pieces_BL)
        rotary = rotary_table(x_BTD.shape[1], x_BTD.device, x_BTD.dtype)
        for step_D in self.steps().to(x_BTD.dtype):
            x_BTD = self.layer(x_BTD, step_D, rotary)
        return x_BTD

    def prefix(self, embeddings_BE: Tensor) -> Tensor:
        """(B, E) embeddings as (B, P, D) states, before their norm."""
        scaled = embeddings_BE * self.config.embedding_dimension**0.5
        weight = self.projection
        return F.linear(scaled.to(weight.dtype), weight).view(-1, self.config.prefix_states, HIDDEN)

    def inputs(self, prefix_BPD: Tensor, pieces_BL: Tensor) -> Tensor:
        """(B, P + L, D) states that enter the first application."""
        return torch.cat(
            [normalise(prefix_BPD, self.input_norm), self.piece_inputs(prefix_BPD, pieces_BL)], 1
        )

    def piece_inputs(self, prefix_BPD: Tensor, pieces_BL: Tensor) -> Tensor:
        """(B, L, D) states of pieces; the mean prefix state is added to each, so that none is far from it."""
        x_BLD = F.embedding(pieces_BL, self.pieces) * HIDDEN**0.5
        x_BLD = x_BLD + self.prefix_gain * prefix_BPD.mean(1, keepdim=True)
        return normalise(x_BLD, self.input_norm)

    def steps(self) -> Tensor:
        """(A, D) vectors added before each application: a learned gain times a fixed code of its number."""
        numbers_A = torch.arange(self.config.applications, device=self.step_gain.device)
        phase_A = math.pi * (numbers_A + 0.5) / self.config.applications
        code_A2 = torch.stack([phase_A.cos(), torch.cos(2 * phase_A)], 1)
        return code_A2.to(self.step_gain.dtype) @ self.step_gain

    def layer(self, x_BTD: Tensor, step_D: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """One application to every position, each of which sees itself and those before it."""
        x_BTD = x_BTD + step_D
        query, key, value = self.attention_inputs(x_BTD, rotary)
        y_BHTK = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.layer_output(x_BTD, y_BHTK)

    def attention_inputs(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, H, T, K) each; the first two normalised and rotated."""
        x_BTD = normalise(x_BTD, self.attention_norm)
        batch, positions, _ = x_BTD.shape
        projected = F.linear(x_BTD, self.query_key_value).view(batch, positions, 3, HEADS, -1)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        return rotate(normalise(query), rotary), rotate(normalise(key), rotary), value

    def layer_output(self, x_BTD: Tensor, y_BHTK: Tensor) -> Tensor:
        """(B, T, D): what attention read is added, then the MLP's answer."""
        x_BTD = x_BTD + F.linear(y_BHTK.transpose(1, 2).flatten(2), self.attention_out)
        inner_BTF = F.relu(F.linear(normalise(x_BTD, self.mlp_norm), self.mlp_in)).square()
        return x_BTD + F.linear(inner_BTF, self.mlp_out)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """(B, T, V) float32 scores of the next piece."""
        scores: Tensor = F.linear(normalise(x_BTD, self.output_norm), self.pieces).float()
        return scores * (4 / math.sqrt(HIDDEN)) + self.output_bias


def normalise(x: Tensor, gain: Tensor | None = None) -> Tensor:
    """Root mean square of the last axis made one, times a gain."""
    return F.rms_norm(x, (x.shape[-1],), gain, _EPSILON)


def rotary_table(positions: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (positions, K) each."""
    width = HIDDEN // HEADS
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angles = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * _ROTARY_BASE**-exponents
    return angles.cos().repeat(1, 2).to(dtype), angles.sin().repeat(1, 2).to(dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of components (i, i + K / 2) by their position's angles."""
    cosine, sine = rotary
    half = x.shape[-1] // 2
    return x * cosine + torch.cat([-x[..., half:], x[..., :half]], -1) * sine
