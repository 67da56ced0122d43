"""How an adapter maps: one module a strategy, each a correction of a linear map that has a closed form.

All corrections begin at zero, so that training starts from the ridge. A strategy maps both ways.

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
    """One code for both spaces: an encoder and a decoder of each; each text's two codes are drawn together.

    Chandar et al. 2016, Correlational neural networks.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config)
        dimensions = {"source": config.source_dimension, "target": config.target_dimension}
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(size, config.width), nn.GELU())
                for name, size in dimensions.items()
            }
        )
        self.decoders = nn.ModuleDict(
            {name: _zero(nn.Linear(config.width, size)) for name, size in dimensions.items()}
        )

    def forward(self, embeddings_ND: Tensor, reverse: bool = False) -> Tensor:
        """As Linear's."""
        here, there = ("target", "source") if reverse else ("source", "target")
        moved: Tensor = self.decoders[there](self.encoders[here](embeddings_ND))
        return super().forward(embeddings_ND, reverse) + moved

    def compared(self, source_NS: Tensor, target_NT: Tensor) -> Iterator[Compared]:
        """The answers, and the codes."""
        yield from super().compared(source_NS, target_NT)
        yield self.encoders["source"](source_NS), self.encoders["target"](target_NT)


STRATEGIES: dict[StrategyName, type[Linear]] = {
    "linear": Linear,
    "hierarchical": Hierarchical,
    "attention": Attention,
    "autoencoder": Autoencoder,
}


def _perceptron(start: int, width: int, end: int) -> nn.Module:
    return nn.Sequential(nn.Linear(start, width), nn.GELU(), _zero(nn.Linear(width, end)))


def _zero(layer: nn.Linear) -> nn.Linear:
    """Begins as nothing added."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
