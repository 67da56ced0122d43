"""UniversalAdapter: embeddings of one teacher as another would give them, and back.

FOLDER/
  model.safetensors   the weights, float16
  config.json         strategy, both spaces, how it was trained; written last
  README.md           the model card, if there is one
"""

from functools import partial
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from pydantic import JsonValue
from torch.nn.functional import normalize

from cellular.adapter.config import AdapterConfig, StrategyName
from cellular.adapter.strategies import STRATEGIES, Linear
from cellular.checkpoint_files import CheckpointConfig, as_stored, read_checkpoint, restore, write_checkpoint
from cellular.checks import check_embeddings
from cellular.config import Settings
from cellular.errors import CellularError
from cellular.types import FloatArray

DEFAULT_ADAPTER = "adapter-lsa-768-to-all-MiniLM-L6-v2"
_ROWS = 8_192  # mapped at once


class Space(Settings):
    """What a teacher's embeddings mean."""

    name: str
    fingerprint: str
    dimension: int


class _Config(CheckpointConfig):
    kind = "an adapter's"

    adapter: AdapterConfig
    source: Space
    target: Space


class UniversalAdapter:
    """Maps a source space to a target space, and back with `reverse=True`.

    Weights are rounded to float16 when an adapter is made, so that a loaded one is the one that was saved.

    Args:
        network: one of STRATEGIES, with the dimensions of the spaces; becomes the adapter's own.
        source, target: the two spaces.
        training: facts for people.

    Raises:
        ValueError: the network has other dimensions.
    """

    def __init__(
        self, network: Linear, source: Space, target: Space, training: dict[str, JsonValue] | None = None
    ) -> None:
        config = network.config
        if (config.source_dimension, config.target_dimension) != (source.dimension, target.dimension):
            raise ValueError(f"the network does not map {source.dimension} to {target.dimension} dimensions")
        self.network = network.half().float().cpu().eval().requires_grad_(False)
        self.source, self.target = source, target
        self.training = training or {}

    @property
    def source_fingerprint(self) -> str:
        """Names the space that is read."""
        return self.source.fingerprint

    @property
    def target_fingerprint(self) -> str:
        """Names the space that is written."""
        return self.target.fingerprint

    @property
    def strategy(self) -> StrategyName:
        """A name in STRATEGIES."""
        return self.network.config.strategy

    @property
    def parameters(self) -> int:
        """Weights of both directions."""
        return sum(weight.numel() for weight in self.network.parameters())

    def __call__(self, embeddings: ArrayLike, reverse: bool = False) -> FloatArray:
        """Map embeddings.

        Args:
            embeddings: (N, D) or (D,) floating point, D the source's; with `reverse` the target's.
            reverse: from the target's space to the source's.

        Returns:
            (N, D) float32 in the other space, every row of unit length.

        Raises:
            ValueError: wrong dtype or shape, NaN, infinity or a zero vector; names the row.
        """
        here = self.target if reverse else self.source
        rows = torch.from_numpy(check_embeddings(embeddings, here.dimension).copy())
        with torch.inference_mode():
            mapped = [normalize(self.network(part, reverse), dim=1) for part in torch.split(rows, _ROWS)]
            result: FloatArray = torch.cat(mapped).numpy()
        return result

    def check_source(self, fingerprint: str) -> None:
        """Refuse vectors that are not the source's.

        Raises:
            CellularError: the fingerprint is another's.
        """
        _check(self.source, fingerprint)

    def check_target(self, fingerprint: str) -> None:
        """Refuse vectors that are not the target's, before they are mapped back; errors as `check_source`."""
        _check(self.target, fingerprint)

    @classmethod
    def load(cls, folder_or_name: Path | str = DEFAULT_ADAPTER) -> "UniversalAdapter":
        """An adapter that comes with the package, by name, or one in a folder.

        Raises:
            CellularError: there is none, it is damaged, or another release's.
        """
        folder, config = read_checkpoint(folder_or_name, _Config)
        network = restore(folder, partial(make_network, config.adapter))
        return cls(network, config.source, config.target, config.training)

    def save(self, folder: Path | str, card: str | None = None) -> None:
        """Write a folder, made if need be; one that is there is replaced file by file.

        Args:
            folder: of the files above.
            card: text of the model card; None: none is written.
        """
        config = _Config(
            adapter=self.network.config, source=self.source, target=self.target, training=self.training
        )
        write_checkpoint(folder, config, as_stored(self.network, torch.float16), card)


def make_network(config: AdapterConfig, seed: int = 0) -> Linear:
    """An untrained network of a strategy; the program's own random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return STRATEGIES[config.strategy](config)


def _check(space: Space, fingerprint: str) -> None:
    if fingerprint != space.fingerprint:
        raise CellularError(
            f"the adapter maps embeddings of {space.name} ({space.fingerprint}), not of {fingerprint}: "
            f"embed with {space.name}, or train an adapter for the other teacher"
        )
