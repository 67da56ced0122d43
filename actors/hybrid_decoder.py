"""The hybrid decoder as a worker: a bank, RET, and a teacher that may run elsewhere."""

from operator import attrgetter
from pathlib import Path
from typing import Any

from actors.decoding import HybridOptions, HybridResult
from actors.phrase_bank_decoder import describe_bank
from actors.ret_decoder import RETDecoder
from cellular.bank import PhraseBank
from cellular.decoders import hybrid
from cellular.decoders.ret.weights import Precision
from cellular.teachers import Teacher
from cellular.types import FloatArray


class HybridDecoder:
    """Holds one version of a bank and one checkpoint.

    Args:
        bank: folder of the bank.
        version: which version; None is the current one.
        checkpoint: RET's name or folder.
        engine: what computes RET.
        precision: what that computes in; None: fp32.
        effort: a name in `cellular.decoders.hybrid.EFFORTS`.
        teacher: judges; one call a batch.

    Raises:
        CellularError: something is missing, or of another embedding space.
    """

    def __init__(
        self,
        bank: Path,
        version: str | None,
        checkpoint: str,
        engine: str,
        precision: Precision | None,
        effort: str,
        teacher: Teacher,
    ) -> None:
        self.bank = PhraseBank.open(bank, version=version)
        self.ret = RETDecoder(checkpoint, engine, precision)
        self.decoder = hybrid.HybridDecoder(self.bank, self.ret.decoder, teacher, effort)

    def decode(self, embeddings: FloatArray, options: HybridOptions) -> list[HybridResult]:
        """Turn (N, D) float32 embeddings into texts."""
        results = self.decoder.decode_batch(
            embeddings, max_teacher_calls=options.max_teacher_calls, seed=options.seed
        )
        return [HybridResult(*attrgetter(*HybridResult._fields)(result)) for result in results]

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return self.ret.describe() | {
            "bank": describe_bank(self.bank),
            "max_teacher_calls": self.decoder.config.max_teacher_calls,
        }
