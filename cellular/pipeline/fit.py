"""Whether the pieces of a pipeline belong together: each must read the space that the one before writes."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.pipeline.config import (
    AdapterSettings,
    DecoderSettings,
    HybridPipelineConfig,
    LatticeSettings,
    PipelineConfig,
    TextToTextPipelineConfig,
    TextToTextSettings,
)

Place = tuple[str | int, ...]  # the keys that lead to a setting


class Space(NamedTuple):
    """A space of embeddings: its fingerprint, and how many numbers they have, where that is known."""

    fingerprint: str
    dimension: int | None = None

    def __str__(self) -> str:
        return self.fingerprint + (f" ({self.dimension} numbers)" if self.dimension else "")


class Piece(NamedTuple):
    """What a setting names: the space that it reads and the one that it writes. None: text."""

    place: Place
    reads: Space | None
    writes: Space | None


UNKNOWN = Space("")  # of a piece that cannot be opened: nothing can be said of what follows it
_WRITERS: frozenset[Place] = frozenset(
    {("teacher", "name"), ("adapter", "checkpoint"), ("lattice", "checkpoint")}
)


def misfits(config: PipelineConfig, wrong: Mapping[Place, str]) -> dict[Place, str]:
    """What is missing, or does not fit the piece before it.

    Args:
        config: valid settings.
        wrong: places that were not valid, and hold defaults now: pieces there are not looked at.
    """
    problems: dict[Place, str] = {}
    pieces = []
    for place, describe in _pieces(config).items():
        spaces: _Spaces = (None, UNKNOWN if place in _WRITERS else None)
        if not any(place[: len(bad)] == bad for bad in wrong):
            try:
                spaces = describe()
            except CellularError as error:
                if str(error) not in problems.values():
                    problems[place] = str(error)
        pieces.append(Piece(place, *spaces))
    return problems | _breaks(pieces)


def _breaks(pieces: Sequence[Piece]) -> dict[Place, str]:
    """Where a piece reads another space than the one before it writes; decoders all read the last."""
    problems, source = {}, ("", UNKNOWN)
    for place, reads, writes in pieces:
        name, written = source
        if reads and written is not UNKNOWN and reads.fingerprint != written.fingerprint:
            problems[place] = f"it reads {reads}, but {name} writes {written}"
        if writes:
            source = (".".join(map(str, place)), writes)
    return problems


_Spaces = tuple[Space | None, Space | None]  # read, written


def _pieces(config: PipelineConfig) -> dict[Place, Callable[[], _Spaces]]:
    """How the pieces at each place are described, in the order in which a text passes them."""
    if isinstance(config, TextToTextPipelineConfig):
        model = config.text_to_text
        setting = "checkpoint" if model.task is None else "task"
        return {("text_to_text", setting): lambda: _text_to_text(model)}
    pieces: dict[Place, Callable[[], _Spaces]] = {("teacher", "name"): lambda: _teacher(config.teacher)}
    if isinstance(config, HybridPipelineConfig):
        pieces["adapter", "checkpoint"] = lambda: _adapter(config.adapter)
    if lattice := config.lattice:
        pieces["lattice", "checkpoint"] = lambda: _lattice(lattice)
        pieces["lattice", "steps"] = lambda: _steps(lattice)
        pieces["lattice", "device"] = lambda: _device(lattice)
    if config.decoder.uses_ret:
        pieces["decoder", "checkpoint"] = lambda: _ret(config.decoder)
    if config.decoder.uses_bank:
        pieces["decoder", "bank"] = lambda: _bank(config.decoder)
    return pieces


def _teacher(config: TeacherConfig) -> _Spaces:
    from cellular.teachers import teacher_fingerprint

    return None, Space(teacher_fingerprint(config))


def _adapter(settings: AdapterSettings) -> _Spaces:
    from cellular.adapter import UniversalAdapter

    adapter = UniversalAdapter.load(settings.checkpoint)
    source, target = adapter.source, adapter.target
    return Space(source.fingerprint, source.dimension), Space(target.fingerprint, target.dimension)


def _lattice(settings: LatticeSettings) -> _Spaces:
    from cellular.lattice import load_lattice

    checkpoint = load_lattice(settings.checkpoint)
    space = Space(checkpoint.teacher, checkpoint.lattice.config.embedding_dimension)
    return space, space


def _steps(settings: LatticeSettings) -> _Spaces:
    if settings.steps is not None:
        from cellular.lattice import load_lattice

        config = load_lattice(settings.checkpoint).lattice.config
        if settings.steps < config.size[0] - 1 and not config.sweeps:
            layers = config.size[0]
            raise CellularError(f"without Mamba nothing crosses {layers} layers in {settings.steps} steps")
    return None, None


def _device(settings: LatticeSettings) -> _Spaces:
    if settings.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise CellularError("this machine has no CUDA GPU: choose auto or cpu")
    return None, None


def _ret(settings: DecoderSettings) -> _Spaces:
    from cellular.decoders.ret.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint

    teacher = load_checkpoint(settings.checkpoint or DEFAULT_CHECKPOINT).teacher
    return Space(teacher.fingerprint, teacher.dimension), None


def _bank(settings: DecoderSettings) -> _Spaces:
    from cellular.decoders.opening import open_bank

    bank = open_bank(settings.bank)
    return Space(bank.fingerprint, bank.dimension), None


def _text_to_text(settings: TextToTextSettings) -> _Spaces:
    from cellular.cct import load_text_to_text

    tasks = load_text_to_text(settings.checkpoint).model.config.tasks
    if settings.task not in (None, *tasks):
        raise CellularError(f"this model has {', '.join(tasks)}, not {settings.task!r}")
    return None, None
