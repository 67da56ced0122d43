"""Pipelines: three named ways from a text to a text, and how they are set."""

from cellular.pipeline.config import (
    DirectPipelineConfig,
    HybridPipelineConfig,
    PipelineConfig,
    TextToTextPipelineConfig,
)
from cellular.pipeline.loading import NAMED, PipelineConfigError, load_config
from cellular.pipeline.pipeline import FlexibleCellularPipeline

__all__ = [
    "NAMED",
    "DirectPipelineConfig",
    "FlexibleCellularPipeline",
    "HybridPipelineConfig",
    "PipelineConfig",
    "PipelineConfigError",
    "TextToTextPipelineConfig",
    "load_config",
]
