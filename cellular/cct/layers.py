"""The transformer layer that encoder and decoder have in common, and what tells it where a piece is.

As in RET: norms are RMS (Zhang & Sennrich 2019), the activation is a squared ReLU (So et al. 2021), queries
and keys are normalised (Dehghani et al. 2023) and rotated by their position (Su et al. 2021). Weights are
not shared between layers.

Shapes: B texts, T positions, D hidden, H heads, K = D / H, F inner width of the MLP.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.decoders.ret.model import normalise, rotate

Rotary = tuple[Tensor, Tensor]

_LONGEST_WAVE = 10_000.0  # positions, both of rotations and of position codes


class Layer(nn.Module):
    """Attention and an MLP, each added to what it reads."""

    def __init__(self, hidden: int, heads: int, inner: int, layers: int) -> None:
        super().__init__()
        depth = (2 * layers) ** -0.5
        self.heads = heads
        self.attention_norm = nn.Parameter(torch.ones(hidden))
        self.query_key_value = nn.Parameter(torch.randn(3 * hidden, hidden) / hidden**0.5)
        self.attention_out = nn.Parameter(depth * torch.randn(hidden, hidden) / hidden**0.5)
        self.mlp_norm = nn.Parameter(torch.ones(hidden))
        self.mlp_in = nn.Parameter(torch.randn(inner, hidden) / hidden**0.5)
        self.mlp_out = nn.Parameter(depth * torch.randn(hidden, inner) / inner**0.5)

    def forward(self, x_BTD: Tensor, rotary: Rotary, real_BT: Tensor | None = None) -> Tensor:
        """(B, T, D): every position after it has read those that it sees.

        Args:
            x_BTD: what the positions hold.
            rotary: as `rotary_table` gives it, (T, K) each.
            real_BT: bool, the positions that all see; None: each sees itself and those before it.
        """
        query, key, value = self.attention_inputs(x_BTD, rotary)
        mask = None if real_BT is None else real_BT[:, None, None]
        y_BHTK = F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
        return self.output(x_BTD, y_BHTK)

    def attention_inputs(self, x_BTD: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, H, T, K) each; the first two normalised and rotated."""
        projected = F.linear(normalise(x_BTD, self.attention_norm), self.query_key_value)
        query, key, value = torch.unflatten(projected, -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(normalise(query), rotary), rotate(normalise(key), rotary), value

    def output(self, x_BTD: Tensor, y_BHTK: Tensor) -> Tensor:
        """(B, T, D): what attention read is added, then the MLP's answer."""
        x_BTD = x_BTD + F.linear(y_BHTK.transpose(1, 2).flatten(2), self.attention_out)
        inner_BTF = F.relu(F.linear(normalise(x_BTD, self.mlp_norm), self.mlp_in)).square()
        return x_BTD + F.linear(inner_BTF, self.mlp_out)


def rotary_table(positions: int, width: int, like: Tensor) -> Rotary:
    """Cosines and sines, (positions, width) each, of a tensor's device and dtype."""
    angles = _angles(positions, width, like.device)
    return angles.cos().repeat(1, 2).to(like.dtype), angles.sin().repeat(1, 2).to(like.dtype)


def position_codes(positions: int, width: int, like: Tensor) -> Tensor:
    """(positions, width) sines and cosines of a position's number (Vaswani et al. 2017), of mean square 1.

    Rotations tell how far apart pieces are; these, where in the text a piece is, which the one vector that
    passes the bottleneck has to hold.
    """
    angles = _angles(positions, width, like.device)
    return (math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], 1)).to(like.dtype)


def _angles(positions: int, width: int, device: torch.device) -> Tensor:
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    numbers = torch.arange(positions, device=device, dtype=torch.float32)
    return numbers[:, None] * _LONGEST_WAVE**-exponents
