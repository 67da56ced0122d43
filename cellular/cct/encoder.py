"""Text to one vector: a compact convolutional transformer, made one-dimensional.

Hassani et al. 2021, Escaping the big data paradigm with compact transformers: a convolution and a pooling
make fewer, overlapping tokens, which a transformer reads; attention weights over its outputs pool them into
one vector (sequence pooling), so that there is no class token. Here several such poolings, each over numbers
of its own, stand side by side: one average could not keep which word came where.

Padding changes nothing: what is behind a text is zero before each convolution and pooling, and unseen after.

Shapes: B texts, S pieces with END, N tokens, D hidden, P poolings, E = P W embedding dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.cct.config import CCTConfig
from cellular.cct.layers import Layer, position_codes, rotary_table
from cellular.decoders.ret.model import VOCABULARY, normalise
from cellular.decoders.ret.vocabulary import END


class Encoder(nn.Module):
    """Pieces to embeddings of unit length."""

    def __init__(self, config: CCTConfig) -> None:
        super().__init__()
        self.tokenizer = ConvTokenizer(config)
        self.layers = nn.ModuleList(
            Layer(config.hidden, config.heads, config.inner, config.encoder_layers)
            for _ in range(config.encoder_layers)
        )
        self.pool = SequencePool(config)
        self.head_width = config.hidden // config.heads

    def forward(self, pieces_BS: Tensor) -> Tensor:
        """(B, E) float32 of unit length.

        Args:
            pieces_BS: (B, S) int64, S at least 1; each text ends with END, and END pads it.
        """
        x_BND, real_BN = self.tokenizer(pieces_BS)
        rotary = rotary_table(x_BND.shape[1], self.head_width, x_BND)
        for layer in self.layers:
            x_BND = layer(x_BND, rotary, real_BN)
        pooled_BE: Tensor = self.pool(x_BND, real_BN)
        return F.normalize(pooled_BE.float(), dim=-1)


class ConvTokenizer(nn.Module):
    """Convolution, ReLU and max pooling over the pieces' vectors: half as many tokens as pieces."""

    def __init__(self, config: CCTConfig) -> None:
        super().__init__()
        width, hidden = config.kernel, config.hidden
        self.pieces = nn.Parameter(torch.randn(VOCABULARY, hidden))
        self.kernel = nn.Parameter(torch.randn(hidden, hidden * width) * (2 / (hidden * width)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.norm = nn.Parameter(torch.ones(hidden))
        self.position_gain = nn.Parameter(torch.ones(hidden))

    def forward(self, pieces_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D), and which are real, (B, N) bool."""
        real_BS = real_pieces(pieces_BS)
        x_BSD = F.embedding(pieces_BS, self.pieces) * real_BS[..., None]
        kernel_DDK = torch.unflatten(self.kernel, 1, (len(self.bias), -1))
        x_BDS = F.conv1d(x_BSD.mT, kernel_DDK, self.bias, padding="same")
        x_BDS = F.relu(x_BDS) * real_BS[:, None]
        x_BND = normalise(F.max_pool1d(x_BDS, 3, stride=2, padding=1).mT, self.norm)
        codes_ND = position_codes(x_BND.shape[1], x_BND.shape[2], x_BND)
        return x_BND + self.position_gain * codes_ND, real_BS[:, ::2]


class SequencePool(nn.Module):
    """Averages of the tokens' numbers, weighted as the tokens themselves say."""

    def __init__(self, config: CCTConfig) -> None:
        super().__init__()
        self.slots = config.slots
        self.norm = nn.Parameter(torch.ones(config.hidden))
        self.score = nn.Parameter(torch.randn(config.slots, config.hidden) / config.hidden**0.5)
        self.value = nn.Parameter(torch.randn(config.embedding_dimension, config.hidden) / config.hidden**0.5)

    def forward(self, x_BND: Tensor, real_BN: Tensor) -> Tensor:
        """(B, E) of (B, N, D)."""
        x_BND = normalise(x_BND, self.norm)
        score_BNP = F.linear(x_BND, self.score).float().masked_fill(~real_BN[..., None], -torch.inf)
        value_BNPW = torch.unflatten(F.linear(x_BND, self.value), -1, (self.slots, -1))
        weight_BNP = score_BNP.softmax(1).to(value_BNPW.dtype)
        return torch.einsum("bnp,bnpw->bpw", weight_BNP, value_BNPW).flatten(1)


def real_pieces(pieces_BS: Tensor) -> Tensor:
    """(B, S) bool: the pieces of each text up to its END."""
    return F.pad(pieces_BS[:, :-1] != END, (1, 0), value=True)
