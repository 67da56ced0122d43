"""Phrase banks: phrases with their embeddings, on disk, memory-mapped and searchable."""

from cellular.bank.index import default_factory
from cellular.bank.manifest import Manifest, current_version, publish
from cellular.bank.phrase_bank import PhraseBank, PhraseRecord, SearchResult
from cellular.bank.verify import VerifyReport, verify_bank
from cellular.bank.writer import create_bank

__all__ = [
    "Manifest",
    "PhraseBank",
    "PhraseRecord",
    "SearchResult",
    "VerifyReport",
    "create_bank",
    "current_version",
    "default_factory",
    "publish",
    "verify_bank",
]
