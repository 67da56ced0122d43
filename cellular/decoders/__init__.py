"""Decoders: from an embedding to text. One file and a line in DECODERS add another."""

from cellular.decoders.assembly import ASSEMBLERS
from cellular.decoders.context import Session, Turn
from cellular.decoders.phrase_bank import PhraseBankDecoder, default_bank_path
from cellular.decoders.results import Candidate, DecodeResult

# Where each class is. `pkgutil.resolve_name` fetches it, so that one decoder never loads another's libraries.
DECODERS = {
    "phrase_bank": "cellular.decoders.phrase_bank:PhraseBankDecoder",
    "ret": "cellular.decoders.ret:RETDecoder",
    "hybrid": "cellular.decoders.hybrid:HybridDecoder",
}

__all__ = [
    "ASSEMBLERS",
    "DECODERS",
    "Candidate",
    "DecodeResult",
    "PhraseBankDecoder",
    "Session",
    "Turn",
    "default_bank_path",
]
