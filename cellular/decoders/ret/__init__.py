"""RET v2.1: the transformer of 722,944 parameters that writes the text of an embedding.

Each name is imported when it is first used: who needs only the vocabulary does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "checkpoint": ("DEFAULT_CHECKPOINT", "Checkpoint", "TeacherInfo", "load_checkpoint", "save_checkpoint"),
    "decoder": ("Hypothesis", "RETDecoder", "create_ultra_compact_decoder"),
    "generation": ("MAX_PIECES", "Engine", "TorchEngine"),
    "model": ("RET", "RETConfig"),
    "vocabulary": ("Vocabulary",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
