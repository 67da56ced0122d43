"""Turn embeddings back into text: teachers, phrase banks and decoders.

The names below are the public API. Each is imported when it is first used, so that a program which needs one
of them does not wait for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellular.bank import PhraseBank, SearchResult, verify_bank
    from cellular.client.calls import APIError
    from cellular.client.clients import AsyncClient, Client
    from cellular.config import BuildConfig, DecodingConfig, HybridConfig, TeacherConfig
    from cellular.decoders import DecodeResult, PhraseBankDecoder, Session
    from cellular.decoders.hybrid import HybridDecoder, HybridResult
    from cellular.decoders.ret import RETDecoder, create_ultra_compact_decoder
    from cellular.embeddings import EmbeddingLoader
    from cellular.errors import CellularError
    from cellular.pipeline import FlexibleCellularPipeline, load_config
    from cellular.teachers import Teacher, load_teacher

__version__ = "0.1.0"

__all__ = [
    "APIError",
    "AsyncClient",
    "BuildConfig",
    "CellularError",
    "Client",
    "DecodeResult",
    "DecodingConfig",
    "EmbeddingLoader",
    "FlexibleCellularPipeline",
    "HybridConfig",
    "HybridDecoder",
    "HybridResult",
    "PhraseBank",
    "PhraseBankDecoder",
    "RETDecoder",
    "SearchResult",
    "Session",
    "Teacher",
    "TeacherConfig",
    "create_ultra_compact_decoder",
    "load_config",
    "load_teacher",
    "verify_bank",
]

_MODULES = {
    "cellular.bank": ("PhraseBank", "SearchResult", "verify_bank"),
    "cellular.client.calls": ("APIError",),
    "cellular.client.clients": ("AsyncClient", "Client"),
    "cellular.config": ("BuildConfig", "DecodingConfig", "HybridConfig", "TeacherConfig"),
    "cellular.decoders": ("DecodeResult", "PhraseBankDecoder", "Session"),
    "cellular.decoders.hybrid": ("HybridDecoder", "HybridResult"),
    "cellular.decoders.ret": ("RETDecoder", "create_ultra_compact_decoder"),
    "cellular.embeddings": ("EmbeddingLoader",),
    "cellular.errors": ("CellularError",),
    "cellular.pipeline": ("FlexibleCellularPipeline", "load_config"),
    "cellular.teachers": ("Teacher", "load_teacher"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
