"""The phrase bank decoder as a worker: one bank, and a decoder for each assembly method asked for."""

from pathlib import Path
from typing import Any

from actors.decoding import PhraseBankOptions
from cellular import decoders
from cellular.bank import PhraseBank
from cellular.config import DecodingConfig
from cellular.decoders import DecodeResult
from cellular.types import FloatArray


class PhraseBankDecoder:
    """Holds one version of a bank, mapped into memory: workers on one node share its pages.

    Args:
        config: how to decode, where a call does not name a method.
        bank: folder of the bank.
        version: which version; None is the current one.

    Raises:
        CellularError: the bank is missing or damaged.
    """

    def __init__(self, config: DecodingConfig, bank: Path | str, version: str | None) -> None:
        self.bank = PhraseBank.open(bank, version=version)
        self.config = config
        self._decoders: dict[str, decoders.PhraseBankDecoder] = {}

    def decode(
        self, embeddings: FloatArray, options: PhraseBankOptions = PhraseBankOptions()
    ) -> list[DecodeResult]:
        """Turn (N, D) float32 embeddings into texts, each as the next of the session."""
        decoder = self._decoder(options.method or self.config.assembly_method)
        return decoder.decode_batch(embeddings, session=options.session)

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return {
            "teacher": self.bank.manifest.teacher.model_dump(include={"name", "fingerprint"}),
            "bank": describe_bank(self.bank),
            "listed_candidates": self.config.listed_candidates,
        }

    def _decoder(self, method: str) -> decoders.PhraseBankDecoder:
        if method not in self._decoders:
            config = self.config.model_copy(update={"assembly_method": method})
            decoder = decoders.PhraseBankDecoder(config)
            decoder.load_phrase_bank(self.bank)
            self._decoders[method] = decoder
        return self._decoders[method]


def describe_bank(bank: PhraseBank) -> dict[str, Any]:
    """One version of a bank, as the workers that hold it describe it."""
    return {
        "name": bank.path.name,
        "fingerprint": bank.version_id,
        "version": bank.version,
        "phrases": len(bank),
        "dimension": bank.dimension,
        "teacher": bank.manifest.teacher.name,
    }
