"""Text to text: a compact convolutional transformer reads, the lattice works, a transformer writes."""

from cellular.cct.checkpoint import (
    DEFAULT_CHECKPOINT,
    TextToTextCheckpoint,
    load_text_to_text,
    save_text_to_text,
)
from cellular.cct.config import CCTConfig
from cellular.cct.model import CCT
from cellular.cct.text_to_text import MAX_SOURCE, TextToText

__all__ = [
    "CCT",
    "DEFAULT_CHECKPOINT",
    "MAX_SOURCE",
    "CCTConfig",
    "TextToText",
    "TextToTextCheckpoint",
    "load_text_to_text",
    "save_text_to_text",
]
