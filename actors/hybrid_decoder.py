"""The hybrid decoder as a worker: a bank, RET, and a teacher that may run elsewhere."""

from operator import attrgetter
from pathlib import Path
from typing import Any

from actors.decoding import HybridCandidate, HybridOptions, HybridResult
from actors.phrase_bank_decoder import describe_bank
from actors.ret_decoder import RETDecoder
from cellular.bank import PhraseBank
from cellular.decoders import hybrid
from cellular.teachers import Teacher
from cellular.types import FloatArray


class HybridDecoder:
    """Holds one version of a bank, and a RET that it may share.

    Args:
        ret: writes.
        effort: a name in `cellular.decoders.hybrid.EFFORTS`.
        teacher: judges; one call a batch.
        bank: folder of the bank.
        version: which version; None is the current one.

    Raises:
        CellularError: something is missing, or of another embedding space.
    """

    def __init__(
        self, ret: RETDecoder, effort: str, teacher: Teacher, bank: Path | str, version: str | None
    ) -> None:
        self.bank = PhraseBank.open(bank, version=version)
        self.ret = ret
        self.decoder = hybrid.HybridDecoder(self.bank, ret.decoder, teacher, effort)

    def decode(self, embeddings: FloatArray, options: HybridOptions) -> list[HybridResult]:
        """Turn (N, D) float32 embeddings into texts."""
        results = self.decoder.decode_batch(
            embeddings, max_teacher_calls=options.max_teacher_calls, seed=options.seed
        )
        return [_result(result, options.explain) for result in results]

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return self.ret.describe() | {
            "bank": describe_bank(self.bank),
            "max_teacher_calls": self.decoder.config.max_teacher_calls,
        }


_CANDIDATE = attrgetter(*HybridCandidate._fields)


def _result(result: hybrid.HybridResult, explain: bool) -> HybridResult:
    candidates = result.candidates if explain else ()  # a hundred of them, where nobody looks
    return HybridResult(
        result.text,
        result.score,
        result.source,
        result.estimated,
        result.teacher_calls,
        tuple(HybridCandidate(*_CANDIDATE(one)) for one in candidates),
    )
