"""What an application serves: bank, checkpoint and teacher, agreed before anything starts."""

import logging
from dataclasses import dataclass
from pathlib import Path

from cellular.bank import PhraseBank
from cellular.client.results import DecoderName
from cellular.config import TeacherConfig
from cellular.decoders.ret.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, load_checkpoint
from cellular.errors import CellularError
from cellular.teachers import load_teacher
from serve.settings import ServeConfig

logger = logging.getLogger("cellular.serve")


@dataclass(frozen=True)
class Contents:
    """What the replicas load.

    Attributes:
        teacher: the model that makes the embeddings.
        decoders: those that are served.
        bank: opened, where one is served: its version stays, whatever is published later.
        checkpoint: RET's folder or name, where it is served.
    """

    teacher: TeacherConfig
    decoders: tuple[DecoderName, ...]
    bank: PhraseBank | None
    checkpoint: str | None


def resolve(config: ServeConfig) -> Contents:
    """Open what the settings name.

    Raises:
        CellularError: something is missing, or the bank, the checkpoint and the teacher asked for disagree.
    """
    bank = None
    if config.bank is not None and config.decoders != ("ret",):
        bank = PhraseBank.open(config.bank.resolve(), version=config.version)
    checkpoint = None if config.decoders == ("phrase_bank",) else _checkpoint(config, bank)
    manifest = bank.manifest if bank is not None else None
    made_by = next(part.teacher for part in (manifest, checkpoint) if part is not None)
    available: dict[DecoderName, bool] = {
        "phrase_bank": bank is not None,
        "ret": checkpoint is not None,
        "hybrid": bank is not None and checkpoint is not None,
    }
    return Contents(
        teacher=_teacher(config.teacher, made_by.name, made_by.fingerprint),
        decoders=config.decoders or tuple(name for name, there in available.items() if there),
        bank=bank,
        checkpoint=_name(config) if checkpoint else None,
    )


def _name(config: ServeConfig) -> str:
    """A packaged checkpoint's name, or an absolute path: replicas run in folders of their own."""
    name = config.checkpoint or DEFAULT_CHECKPOINT
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _checkpoint(config: ServeConfig, bank: PhraseBank | None) -> Checkpoint | None:
    """The checkpoint; where nobody asked for RET and it does not fit the bank, the bank is served alone."""
    try:
        checkpoint = load_checkpoint(_name(config))
        if bank is not None:
            _check_space(_name(config), checkpoint, bank)
    except CellularError as error:
        if bank is None or config.checkpoint or config.decoders:
            raise
        logger.warning("ret and hybrid are not served: %s", error)
        return None
    return checkpoint


def _check_space(name: str, checkpoint: Checkpoint, bank: PhraseBank) -> None:
    if checkpoint.teacher.fingerprint != bank.fingerprint:
        raise CellularError(
            f"checkpoint {name} is for embeddings of {checkpoint.teacher.fingerprint}, the bank holds "
            f"those of {bank.fingerprint}: name one for {bank.manifest.teacher.name}, or serve the bank alone"
        )


def _teacher(asked: TeacherConfig | None, name: str, fingerprint: str) -> TeacherConfig:
    """The teacher that made the parts, unless another name was asked for, which must be the same model."""
    if asked is not None and asked.name != name:
        found = load_teacher(asked.model_copy(update={"device": "cpu"})).fingerprint
        if found != fingerprint:
            raise CellularError(
                f"what is served is for embeddings of {fingerprint}, not of {found}: use the teacher {name}"
            )
    return asked or TeacherConfig(name=name)
