"""How an adapter maps: one module a strategy, each of which begins as a linear map that has a closed form.

What a strategy adds to it begins at zero, so that training starts from the ridge. A strategy maps both ways.

Shapes: N texts, S dimension of the source space, T of the target's, D of where a map starts, W width.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.adapter.config import AdapterConfig, StrategyName
from cellular.adapter.ridge import Affine

Compared = tuple[Tensor, Tensor]  # what is there and what is wanted, (N, D) each


class Linear(nn.Module):
    """An affine map each way: least squares, then trained if wanted.

    Mikolov et al. 2013, Exploiting similarities among languages for machine translation.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.there = nn.Linear(config.source_dimension, config.target_dimension)
        self.back = nn.Linear(config.target_dimension, config.source_dimension)

    @torch.no_grad()
    def start(self, there: Affine, back: Affine) -> None:
        """Begin with maps in closed form."""
        for layer, map in ((self.there, there), (self.back, back)):
            layer.weight.copy_(torch.from_numpy(map.weight.T))
            layer.bias.copy_(torch.from_numpy(map.bias))

    def forward(self, embeddings_ND: Tensor, reverse: bool = False) -> Tensor:
        """Source to target, (N, S) → (N, T), or back, (N, T) → (N, S); of any length."""
        mapped: Tensor = (self.back if reverse else self.there)(embeddings_ND)
        return mapped

    def compared(self, source_NS: Tensor, target_NT: Tensor) -> Iterator[Compared]:
        """What training draws together for N pairs."""
        yield self(source_NS), target_NT
        yield self(target_NT, reverse=True), source_NS


class Hierarchical(Linear):
    """Levels from coarse to fine: each reads the input and the answer so far, and adds what is missing.

    Widths are W / 4, W / 2, W; training asks every level for the answer. Cascade correlation (Fahlman &
    Lebiere 1990) with deep supervision (Lee et al. 2015).
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config)
        widths = [max(1, config.width // 4), max(1, config.width // 2), config.width]
        both = config.source_dimension + config.target_dimension
        self.levels_there = nn.ModuleList(
            _perceptron(both, width, config.target_dimension) for width in widths
        )
        self.levels_back = nn.ModuleList(
            _perceptron(both, width, config.source_dimension) for width in widths
        )

    def answers(self, embeddings_ND: Tensor, reverse: bool = False) -> Iterator[Tensor]:
        """The linear answer, then that of each level."""
        answer = super().forward(embeddings_ND, reverse)
        yield answer
        for level in self.levels_back if reverse else self.levels_there:
            answer = answer + level(torch.cat([embeddings_ND, F.normalize(answer, dim=1)], dim=1))
            yield answer

    def forward(self, embeddings_ND: Tensor, reverse: bool = False) -> Tensor:
        """As Linear's."""
        *_, answer = self.answers(embeddings_ND, reverse)
        return answer

    def compared(self, source_NS: Tensor, target_NT: Tensor) -> Iterator[Compared]:
        """Every level's answer."""
        for answer in self.answers(source_NS):
            yield answer, target_NT
        for answer in self.answers(target_NT, reverse=True):
            yield answer, source_NS


class Attention(Linear):
    """W anchors, each a place in both spaces: what attends to an anchor's one place is moved by its other.

    Attention over stored patterns is one step of a modern Hopfield network (Ramsauer et al. 2021); that both
    directions share the pairs makes it a bidirectional memory (Kosko 1988).
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config)
        dimensions = {"source": config.source_dimension, "target": config.target_dimension}
        self.keys = nn.ParameterDict(
            {name: F.normalize(torch.randn(config.width, size), dim=1) for name, size in dimensions.items()}
        )
        self.values = nn.ParameterDict(
            {name: torch.zeros(config.width, size) for name, size in dimensions.items()}
        )
        self.sharpness = nn.Parameter(torch.full((2,), 8.0))

    def forward(self, embeddings_ND: Tensor, reverse: bool = False) -> Tensor:
        """As Linear's."""
        here, there = ("target", "source") if reverse else ("source", "target")
        scores_NW = F.linear(embeddings_ND, self.keys[here]) * self.sharpness[int(reverse)]
        moved: Tensor = scores_NW.softmax(dim=1) @ self.values[there]
        return super().forward(embeddings_ND, reverse) + moved


class Autoencoder(Linear):
    """One code for both spaces, of the target's dimension: an encoder and a decoder of each, of width W.

    A text's two codes are drawn together, and each embedding is to come back from its own code. The code
    begins as the target's space itself. Chandar et al. 2016, Correlational neural networks.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config)
        source, code, width = config.source_dimension, config.target_dimension, config.width
        self.own = nn.ModuleDict({"encode": _identity(code), "decode": _identity(code)})
        self.encoders = nn.ModuleDict(
            {"source": _perceptron(source, width, code), "target": _perceptron(code, width, code)}
        )
        self.decoders = nn.ModuleDict(
            {"source": _perceptron(code, width, source), "target": _perceptron(code, width, code)}
        )

    def encode(self, embeddings_ND: Tensor, space: str) -> Tensor:
        """(N, T) codes of embeddings of the space "source" or "target"."""
        linear = self.there if space == "source" else self.own["encode"]
        code_NT: Tensor = linear(embeddings_ND) + self.encoders[space](embeddings_ND)
        return code_NT

    def decode(self, code_NT: Tensor, space: str) -> Tensor:
        """(N, D) embeddings in the space "source" or "target"."""
        linear = self.back if space == "source" else self.own["decode"]
        embeddings_ND: Tensor = linear(code_NT) + self.decoders[space](code_NT)
        return embeddings_ND

    def forward(self, embeddings_ND: Tensor, reverse: bool = False) -> Tensor:
        """As Linear's."""
        here, there = ("target", "source") if reverse else ("source", "target")
        return self.decode(self.encode(embeddings_ND, here), there)

    def compared(self, source_NS: Tensor, target_NT: Tensor) -> Iterator[Compared]:
        """Each embedding from either code, and the codes."""
        codes = {"source": self.encode(source_NS, "source"), "target": self.encode(target_NT, "target")}
        for code_NT in codes.values():
            yield self.decode(code_NT, "source"), source_NS
            yield self.decode(code_NT, "target"), target_NT
        yield codes["source"], codes["target"]


STRATEGIES: dict[StrategyName, type[Linear]] = {
    "linear": Linear,
    "hierarchical": Hierarchical,
    "attention": Attention,
    "autoencoder": Autoencoder,
}


def _perceptron(start: int, width: int, end: int) -> nn.Module:
    return nn.Sequential(nn.Linear(start, width), nn.GELU(), _zero(nn.Linear(width, end)))


def _identity(size: int) -> nn.Linear:
    """Begins as nothing changed."""
    layer = nn.Linear(size, size)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _zero(layer: nn.Linear) -> nn.Linear:
    """Begins as nothing added."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
