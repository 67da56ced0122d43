"""A trained decoder in a folder: weights, settings, vocabulary, and a page for people.

FOLDER/
  model.safetensors   the weights
  config.json         what they are: shape, precision, teacher, how they were trained; written last
  vocabulary.json     the pieces
  README.md           the model card
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import Field, JsonValue

from cellular.checkpoint_files import (
    CONFIG,
    WEIGHTS,
    CheckpointConfig,
    make_untrained,
    plain_card,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
)
from cellular.config import Settings
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.decoders.ret.weights import Precision, pack_weights, unpack_weights
from cellular.errors import CellularError

DEFAULT_CHECKPOINT = "ret-all-MiniLM-L6-v2"
VOCABULARY = "vocabulary.json"


class TeacherInfo(Settings):
    """The embedding space that a decoder reads."""

    name: str
    fingerprint: str
    dimension: int


class _Config(CheckpointConfig):
    kind = "a checkpoint's"

    model: RETConfig
    precision: Precision = Field("fp32", description="of the stored weights")
    teacher: TeacherInfo
    vocabulary: str = Field(description="fingerprint")


@dataclass(frozen=True)
class Checkpoint:
    """All that decoding needs. Loaded weights are float32, rounded to the `precision` of their file."""

    model: RET
    vocabulary: Vocabulary
    teacher: TeacherInfo
    training: dict[str, JsonValue] = field(default_factory=dict)
    precision: Precision = "fp32"


def save_checkpoint(folder: Path | str, checkpoint: Checkpoint, card: str | None = None) -> None:
    """Write a folder; one that is there is replaced file by file.

    Args:
        folder: made if need be.
        checkpoint: its `precision` decides that of the stored weights.
        card: text of the model card; None: the facts as a list.
    """
    config = _Config(
        model=checkpoint.model.config,
        precision=checkpoint.precision,
        teacher=checkpoint.teacher,
        vocabulary=checkpoint.vocabulary.fingerprint,
        training=checkpoint.training,
    )
    write_checkpoint(
        folder,
        config,
        pack_weights(checkpoint.model, checkpoint.precision),
        card or _card(Path(folder).name, config),
        {VOCABULARY: checkpoint.vocabulary.to_json()},
    )


def load_checkpoint(folder_or_name: Path | str = DEFAULT_CHECKPOINT) -> Checkpoint:
    """Read a checkpoint that comes with the package, by name, or one in a folder.

    Raises:
        CellularError: there is none, it is damaged, or another release's.
    """
    folder, config = read_checkpoint(folder_or_name, _Config)
    vocabulary = read_vocabulary(folder, config.vocabulary)
    model = make_untrained(partial(RET, config.model))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    weights = unpack_weights(read_tensors(folder / WEIGHTS), shapes, config.precision)
    model.load_state_dict(weights)
    return Checkpoint(model, vocabulary, config.teacher, config.training, config.precision)


def read_vocabulary(folder: Path, fingerprint: str) -> Vocabulary:
    """The pieces of a checkpoint.

    Raises:
        CellularError: they are missing or damaged, or not those of this fingerprint.
    """
    vocabulary = Vocabulary.from_file(folder / VOCABULARY)
    if vocabulary.fingerprint != fingerprint:
        raise CellularError(f"{folder / VOCABULARY} is not the one that its {CONFIG} names: restore both")
    return vocabulary


def _card(name: str, config: _Config) -> str:
    """A model card of what the configuration knows."""
    facts = {
        "teacher": f"{config.teacher.name} ({config.teacher.fingerprint})",
        "embedding dimension": config.model.embedding_dimension,
        "applications of the layer": config.model.applications,
        "stored as": config.precision,
        **config.training,
    }
    about = "RET v2.1, 722,944 parameters: writes the text of a teacher's embedding."
    return plain_card(name, about, facts)
