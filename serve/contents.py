"""What an application serves: banks, checkpoints and teacher, agreed before anything starts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from cellular import cct
from cellular.adapter import DEFAULT_ADAPTER, Space, UniversalAdapter
from cellular.bank import PhraseBank
from cellular.checkpoint_files import find_checkpoint, packaged_checkpoints
from cellular.config import TeacherConfig
from cellular.decoders.ret.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from cellular.errors import CellularError
from cellular.lattice import load_lattice
from cellular.teachers import load_teacher
from serve.settings import BankSettings, ServeConfig, StageName

logger = logging.getLogger("ray.serve.cellular")

NEEDS: Final[dict[StageName, str]] = {
    "PhraseBankDecoder": "name a bank",
    "RETDecoder": "name a checkpoint of the banks' teacher",
    "HybridDecoder": "it needs a bank, and a checkpoint of its teacher",
    "Lattice": "name lattices of the teacher",
    "SessionStore": "name a bank or a lattice",
}


@dataclass(frozen=True)
class Contents:
    """What the replicas load.

    Attributes:
        teacher: the model that makes the embeddings.
        space: what these are; all parts share it.
        stages: those that are served, beside the Gateway and the Embedder.
        banks: by name, in folders that are found from anywhere.
        checkpoint: RET's folder or name, where it is needed.
        lattices: folders or names, by the name that a request gives.
        text_to_text: folder or name, where it is served.
        adapter: folder or name of what leads from another teacher to this one, for mode hybrid.
    """

    teacher: TeacherConfig
    space: Space
    stages: tuple[StageName, ...]
    banks: Mapping[str, BankSettings]
    checkpoint: str | None
    lattices: Mapping[str, str]
    text_to_text: str | None
    adapter: str | None


def resolve(config: ServeConfig) -> Contents:
    """Open what the settings name; of the parts that come with the package, serve those that fit.

    Raises:
        CellularError: something is missing, or what was asked for is of different teachers.
    """
    wanted: set[StageName] = set(config.stages or get_args(StageName))
    needs_ret = bool(wanted & {"RETDecoder", "HybridDecoder"})
    banks, space = _banks(config)
    checkpoint, space = _checkpoint(config, space) if needs_ret else (None, space)
    space = space or _space_of(load_teacher(config.teacher or TeacherConfig()))
    lattices = _lattices(config, space) if "Lattice" in wanted else {}
    text_to_text = _text_to_text(config) if "TextToText" in wanted else None
    served: dict[StageName, Any] = {
        "PhraseBankDecoder": banks,
        "RETDecoder": checkpoint,
        "HybridDecoder": banks and checkpoint,
        "Lattice": lattices,
        "TextToText": text_to_text,
        "SessionStore": banks or lattices,
    }
    for stage in config.stages or ():
        if not served[stage]:
            raise CellularError(f"there is nothing for {stage} to serve: {NEEDS[stage]}")
    stages = tuple(name for name, there in served.items() if there and name in wanted)
    teacher = _teacher(config.teacher, space)
    adapter = _adapter(config, space)
    return Contents(teacher, space, stages, banks, checkpoint, lattices, text_to_text, adapter)


def _banks(config: ServeConfig) -> tuple[dict[str, BankSettings], Space | None]:
    banks, space = {}, None
    for name, settings in config.banks.items():
        bank = PhraseBank.open(settings.folder.resolve(), version=settings.version)
        own = Space(name=bank.manifest.teacher.name, fingerprint=bank.fingerprint, dimension=bank.dimension)
        _check_space(f"bank {name}", own.fingerprint, space)
        space = space or own
        banks[name] = settings.model_copy(update={"folder": settings.folder.resolve()})
    return banks, space


def _checkpoint(config: ServeConfig, space: Space | None) -> tuple[str | None, Space | None]:
    """RET's; where nobody asked for it and it does not fit the banks, they are served alone."""
    name = _located(config.checkpoint or DEFAULT_CHECKPOINT)
    try:
        own = _space_of(load_checkpoint(name).teacher)
        _check_space(f"checkpoint {name}", own.fingerprint, space)
    except CellularError as error:
        if space is None or config.checkpoint or config.stages:
            raise
        logger.warning("RETDecoder and HybridDecoder are not served: %s", error)
        return None, space
    return name, own


def _lattices(config: ServeConfig, space: Space) -> dict[str, str]:
    """Those that were asked for, or those of the package that fit, by the last part of their name."""
    asked = config.lattices
    found = {}
    for lattice in packaged_checkpoints("lattice-") if asked is None else asked:
        if asked is not None:
            _check_space(f"lattice {lattice}", load_lattice(lattice).teacher, space)
        elif load_lattice(lattice).teacher != space.fingerprint:
            continue
        found[Path(lattice).name] = _located(lattice)
    return found


def _text_to_text(config: ServeConfig) -> str:
    name = config.text_to_text or cct.DEFAULT_CHECKPOINT
    find_checkpoint(name)
    return _located(name)


def _adapter(config: ServeConfig, space: Space) -> str | None:
    """The one that was asked for, or that of the package, if it leads to this teacher."""
    if config.adapter is not None:
        UniversalAdapter.load(config.adapter).check_target(space.fingerprint)
        return _located(config.adapter)
    there = DEFAULT_ADAPTER in packaged_checkpoints()
    fits = there and UniversalAdapter.load().target.fingerprint == space.fingerprint
    return DEFAULT_ADAPTER if fits else None


def _located(name: str) -> str:
    """A packaged checkpoint's name, or an absolute path: replicas run in folders of their own."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _check_space(what: str, fingerprint: str, space: Space | None) -> None:
    if space is not None and fingerprint != space.fingerprint:
        raise CellularError(
            f"{what} is for embeddings of {fingerprint}, the rest for those of {space.fingerprint}: "
            f"name one for {space.name}, or serve it alone"
        )


def _space_of(teacher: Any) -> Space:
    return Space(name=teacher.name, fingerprint=teacher.fingerprint, dimension=teacher.dimension)


def _teacher(asked: TeacherConfig | None, space: Space) -> TeacherConfig:
    """The teacher that made the parts, unless another name was asked for, which must be the same model."""
    if asked is not None and asked.name != space.name:
        found = load_teacher(asked.model_copy(update={"device": "cpu"})).fingerprint
        if found != space.fingerprint:
            raise CellularError(
                f"what is served is for embeddings of {space.fingerprint}, not of {found}: "
                f"use the teacher {space.name}"
            )
    return asked or TeacherConfig(name=space.name)
