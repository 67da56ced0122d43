"""RET v2.1: the transformer of 722,944 parameters that writes the text of an embedding."""

from cellular.decoders.ret.checkpoint import (
    DEFAULT_CHECKPOINT,
    Checkpoint,
    TeacherInfo,
    load_checkpoint,
    save_checkpoint,
)
from cellular.decoders.ret.decoder import Hypothesis, RETDecoder, create_ultra_compact_decoder
from cellular.decoders.ret.generation import MAX_PIECES, Engine, TorchEngine
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.vocabulary import Vocabulary

__all__ = [
    "DEFAULT_CHECKPOINT",
    "MAX_PIECES",
    "RET",
    "Checkpoint",
    "Engine",
    "Hypothesis",
    "RETConfig",
    "RETDecoder",
    "TeacherInfo",
    "TorchEngine",
    "Vocabulary",
    "create_ultra_compact_decoder",
    "load_checkpoint",
    "save_checkpoint",
]
