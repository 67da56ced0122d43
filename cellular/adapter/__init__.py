"""Adapters between the spaces of teachers."""

from cellular.adapter.adapter import DEFAULT_ADAPTER, Space, UniversalAdapter, make_network
from cellular.adapter.config import AdapterConfig, StrategyName
from cellular.adapter.ridge import (
    Affine,
    PairSums,
    best_ridge,
    load_maps,
    procrustes,
    ridge,
    save_maps,
    squared_error,
)
from cellular.adapter.strategies import STRATEGIES, Linear

__all__ = [
    "DEFAULT_ADAPTER",
    "STRATEGIES",
    "AdapterConfig",
    "Affine",
    "Linear",
    "PairSums",
    "Space",
    "StrategyName",
    "UniversalAdapter",
    "best_ridge",
    "load_maps",
    "make_network",
    "procrustes",
    "ridge",
    "save_maps",
    "squared_error",
]
