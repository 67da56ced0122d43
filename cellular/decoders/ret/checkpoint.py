"""A trained decoder in a folder: weights, settings, vocabulary, and a page for people.

FOLDER/
  model.safetensors   the weights
  config.json         what they are: shape, precision, teacher, how they were trained; written last
  vocabulary.json     the pieces
  README.md           the model card
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import Field, JsonValue
from safetensors.torch import save

from cellular import __version__
from cellular.checkpoint_files import CONFIG, find_checkpoint, read_config, read_tensors
from cellular.config import Settings
from cellular.decoders.ret.model import RET, RETConfig
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.decoders.ret.weights import Precision, pack_weights, unpack_weights
from cellular.errors import CellularError
from cellular.files import write_atomically

FORMAT: Final = 1
DEFAULT_CHECKPOINT = "ret-all-MiniLM-L6-v2"
WEIGHTS, VOCABULARY, CARD = "model.safetensors", "vocabulary.json", "README.md"


class TeacherInfo(Settings):
    """The embedding space that a decoder reads."""

    name: str
    fingerprint: str
    dimension: int


class _Config(Settings):
    """What config.json holds."""

    format: Literal[1] = FORMAT
    model: RETConfig
    precision: Precision = Field("fp32", description="of the stored weights")
    teacher: TeacherInfo
    vocabulary: str = Field(description="fingerprint")
    training: dict[str, JsonValue] = Field({}, description="facts for people: data, command, commit, figures")
    cellular: str = Field(__version__, description="release that wrote it")


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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = _Config(
        model=checkpoint.model.config,
        precision=checkpoint.precision,
        teacher=checkpoint.teacher,
        vocabulary=checkpoint.vocabulary.fingerprint,
        training=checkpoint.training,
    )
    write_atomically(folder / WEIGHTS, save(pack_weights(checkpoint.model, checkpoint.precision)))
    write_atomically(folder / VOCABULARY, checkpoint.vocabulary.to_json())
    write_atomically(folder / CARD, (card or _card(folder.name, config)).encode())
    write_atomically(folder / CONFIG, f"{config.model_dump_json(indent=2)}\n".encode())


def load_checkpoint(folder_or_name: Path | str = DEFAULT_CHECKPOINT) -> Checkpoint:
    """Read a checkpoint that comes with the package, by name, or one in a folder.

    Raises:
        CellularError: there is none, it is damaged, or another release's.
    """
    folder = find_checkpoint(folder_or_name)
    config = read_config(folder / CONFIG, _Config, f"a checkpoint's of format {FORMAT}")
    vocabulary = Vocabulary.from_file(folder / VOCABULARY)
    if vocabulary.fingerprint != config.vocabulary:
        raise CellularError(f"{folder / VOCABULARY} is not the one that its {CONFIG} names: restore both")
    with torch.random.fork_rng(devices=[]):  # a program's own random numbers stay as they are
        model = RET(config.model)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    weights = unpack_weights(read_tensors(folder / WEIGHTS), shapes, config.precision)
    model.load_state_dict(weights)
    return Checkpoint(model, vocabulary, config.teacher, config.training, config.precision)


def _card(name: str, config: _Config) -> str:
    """A model card of what the configuration knows."""
    facts = {
        "teacher": f"{config.teacher.name} ({config.teacher.fingerprint})",
        "embedding dimension": config.model.embedding_dimension,
        "applications of the layer": config.model.applications,
        "stored as": config.precision,
        **config.training,
    }
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return f"# {name}\n\nRET v2.1, 722,944 parameters: writes the text of a teacher's embedding.\n\n{lines}\n"
