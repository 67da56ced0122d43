"""A text-to-text model in a folder.

FOLDER/
  model.safetensors   the weights, bfloat16
  config.json         what they are: shape, tasks, vocabulary, how they were trained; written last
  vocabulary.json     the pieces
  README.md           the model card
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from pydantic import Field, JsonValue

from cellular.cct.config import CCTConfig
from cellular.cct.model import CCT
from cellular.checkpoint_files import (
    CheckpointConfig,
    as_stored,
    plain_card,
    read_checkpoint,
    restore,
    write_checkpoint,
)
from cellular.decoders.ret.checkpoint import VOCABULARY, read_vocabulary
from cellular.decoders.ret.vocabulary import Vocabulary

DEFAULT_CHECKPOINT = "text-to-text"


class _Config(CheckpointConfig):
    kind = "a text-to-text model's"

    text_to_text: CCTConfig
    vocabulary: str = Field(description="fingerprint")


@dataclass(frozen=True)
class TextToTextCheckpoint:
    """All that writing needs. Loaded weights are float32, as bfloat16 rounded them."""

    model: CCT
    vocabulary: Vocabulary
    training: dict[str, JsonValue] = field(default_factory=dict)


def save_text_to_text(folder: Path | str, checkpoint: TextToTextCheckpoint, card: str | None = None) -> None:
    """Write a folder, made if need be; one that is there is replaced file by file.

    Args:
        folder: its name is the model's.
        checkpoint: what to write.
        card: text of the model card; None: the facts as a list.
    """
    model, vocabulary, training = checkpoint.model, checkpoint.vocabulary, checkpoint.training
    config = _Config(text_to_text=model.config, vocabulary=vocabulary.fingerprint, training=training)
    write_checkpoint(
        folder,
        config,
        as_stored(model, torch.bfloat16),
        card or _card(Path(folder).name, checkpoint),
        {VOCABULARY: vocabulary.to_json()},
    )


def load_text_to_text(folder_or_name: Path | str = DEFAULT_CHECKPOINT) -> TextToTextCheckpoint:
    """Read a checkpoint by name or folder; the model is on the processor and set to evaluate.

    Raises:
        CellularError: it is not there, is damaged, or is another release's.
    """
    folder, config = read_checkpoint(folder_or_name, _Config)
    vocabulary = read_vocabulary(folder, config.vocabulary)
    model = restore(folder, partial(CCT, config.text_to_text))
    return TextToTextCheckpoint(model, vocabulary, config.training)


def _card(name: str, checkpoint: TextToTextCheckpoint) -> str:
    """A model card of what the checkpoint knows."""
    facts = {
        "parameters": f"{checkpoint.model.count_parameters()['all']:,}",
        "tasks": ", ".join(checkpoint.model.config.tasks),
        **checkpoint.training,
    }
    return plain_card(name, "Text to text through a 3D lattice of cells, with no teacher.", facts)
