"""A checkpoint in fewer bits, or with fewer weights, without training."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellular.checkpoint_files import WEIGHTS
from cellular.config import Settings
from cellular.decoders.ret.calibration import Batch, calibrate, loss_of, own_texts
from cellular.decoders.ret.checkpoint import Checkpoint, TeacherInfo, save_checkpoint
from cellular.decoders.ret.model import RET
from cellular.decoders.ret.sparsity import sparsity as share_of_zeros
from cellular.decoders.ret.weights import Precision, matrices, round_weights
from cellular.errors import CellularError
from cellular.types import FloatArray

TOLERABLE = 0.02  # nats a piece; beyond it, training to the form pays


class CompressionReport(Settings):
    """What became of a checkpoint. Losses are of its own texts before, in nats a piece."""

    target: Path
    precision: str
    sparsity: float
    bytes: int
    loss_before: float | None = None
    loss_after: float | None = None
    same_texts: float | None = None

    @property
    def needs_training(self) -> bool:
        """Whether it lost so much that it should be trained to its new form."""
        if self.loss_before is None or self.loss_after is None:
            return False
        return self.loss_after - self.loss_before > TOLERABLE


def compress(
    checkpoint: Checkpoint,
    target: Path,
    precision: Precision,
    sparsity: float = 0.0,
    embeddings: FloatArray | None = None,
) -> CompressionReport:
    """Write a checkpoint whose matrices are stored in a precision, with a share of zeros.

    Args:
        checkpoint: to start from; what is in that form already is only written.
        target: folder of the new checkpoint.
        precision: of the weights that are left.
        sparsity: share of zeros in each matrix, 0 to 1.
        embeddings: (N, E) float32 of unit length, some hundred of the same teacher, to calibrate with.

    Raises:
        CellularError: calibration is needed, and there are no embeddings for it.
    """
    if not _needs_calibration(checkpoint.model, precision, sparsity):
        result = _rounded(checkpoint.model, precision)
        return _write(checkpoint, result, target, precision)
    if embeddings is None or not len(embeddings):
        raise CellularError(
            "int4 and pruning are calibrated: give some hundred texts, embeddings or a bank of them"
        )
    texts = own_texts(checkpoint.model, embeddings)
    result = calibrate(checkpoint.model, texts, precision, sparsity)
    report = _write(checkpoint, result, target, precision)
    return report.model_copy(update=_losses(checkpoint.model, result, texts))


def _needs_calibration(model: RET, precision: Precision, sparsity: float) -> bool:
    weights = matrices(model).values()
    fits = all(bool((round_weights(weight, precision) == weight).all()) for weight in weights)
    pruned = share_of_zeros(matrices(model)) >= sparsity - 1e-4
    return not pruned or (precision == "int4" and not fits)


def _rounded(model: RET, precision: Precision) -> RET:
    result = copy.deepcopy(model).requires_grad_(False)
    for weight in matrices(result).values():
        weight.copy_(round_weights(weight, precision))
    return result


def _write(checkpoint: Checkpoint, model: RET, target: Path, precision: Precision) -> CompressionReport:
    zeros = share_of_zeros(matrices(model))
    facts = {**checkpoint.training, "stored as": precision, "sparsity": round(zeros, 4)}
    save_checkpoint(target, replace(checkpoint, model=model, precision=precision, training=facts))
    size = (target / WEIGHTS).stat().st_size
    return CompressionReport(target=target, precision=precision, sparsity=zeros, bytes=size)


def _losses(before: RET, after: RET, texts: list[Batch]) -> dict[str, float]:
    written = own_texts(after, np.concatenate([batch.embeddings_BE.numpy() for batch in texts]))
    same = _texts(texts) & _texts(written)
    return {
        "loss_before": loss_of(before, texts),
        "loss_after": loss_of(after, texts),
        "same_texts": len(same) / len(_texts(texts)),
    }


def _texts(batches: list[Batch]) -> set[tuple[bytes, bytes]]:
    return {
        (embedding_E.numpy().tobytes(), pieces_L.numpy().tobytes())
        for batch in batches
        for embedding_E, pieces_L in zip(*batch, strict=True)
    }


@dataclass(frozen=True)
class Source:
    """Where embeddings for calibration come from: one of these."""

    texts: str | None = None
    embeddings: Path | None = None
    bank: Path | None = None

    def read(self, teacher: TeacherInfo, count: int) -> FloatArray | None:
        """Up to `count` embeddings drawn at random, (N, E) float32 of unit length; None: there is no source.

        Raises:
            CellularError: more than one source, one that cannot be read, or another teacher's.
        """
        if sum(value is not None for value in (self.texts, self.embeddings, self.bank)) > 1:
            raise CellularError("give one of texts, embeddings and a bank to calibrate with")
        if self.bank is not None:
            return self._of_bank(self.bank, teacher, count)
        if self.embeddings is not None:
            from cellular.embedding_files import read_embeddings

            rows = read_embeddings(self.embeddings, teacher.dimension)
            return rows[_draw(len(rows), count)]
        return self._of_texts(self.texts, teacher, count) if self.texts is not None else None

    @staticmethod
    def _of_bank(path: Path, teacher: TeacherInfo, count: int) -> FloatArray:
        from cellular.bank import PhraseBank

        bank = PhraseBank.open(path)
        bank.check_teacher(teacher.fingerprint)
        return bank.embeddings(_draw(len(bank), count))

    @staticmethod
    def _of_texts(path: str, teacher: TeacherInfo, count: int) -> FloatArray:
        from cellular.embedding_files import read_texts
        from cellular.teachers import load_teacher

        texts = list(dict.fromkeys(read_texts(path)))
        model = load_teacher(teacher.name)
        if model.fingerprint != teacher.fingerprint:
            raise CellularError(f"the checkpoint reads {teacher.fingerprint}, {teacher.name} is another now")
        return model.encode([texts[row] for row in _draw(len(texts), count)])


def _draw(rows: int, count: int) -> list[int]:
    chosen = np.random.default_rng(0).permutation(rows)[:count]
    return [int(row) for row in np.sort(chosen)]
