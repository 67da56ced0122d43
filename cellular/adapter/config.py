"""The shape of an adapter. Importing it needs no torch, so that `--help` stays instant."""

from typing import Literal

from pydantic import Field, PositiveInt

from cellular.config import Settings

StrategyName = Literal["linear", "hierarchical", "attention", "autoencoder"]


class AdapterConfig(Settings):
    """Shape of an adapter."""

    strategy: StrategyName = "linear"
    source_dimension: PositiveInt
    target_dimension: PositiveInt
    width: PositiveInt = Field(128, description="hidden numbers, or anchors; unused by linear")
