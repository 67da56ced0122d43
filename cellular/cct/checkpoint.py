"""A text-to-text model in a folder.

FOLDER/
  model.safetensors   the weights, bfloat16
  config.json         what they are: shape, tasks, vocabulary, how they were trained; written last
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
from cellular.cct.config import CCTConfig
from cellular.cct.model import CCT
from cellular.checkpoint_files import CONFIG, find_checkpoint, read_config, read_tensors
from cellular.config import Settings
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.files import write_atomically

FORMAT: Final = 1
DEFAULT_CHECKPOINT = "text-to-text"
WEIGHTS, VOCABULARY, CARD = "model.safetensors", "vocabulary.json", "README.md"


class _Config(Settings):
    """What config.json holds."""

    format: Literal[1] = FORMAT
    text_to_text: CCTConfig
    vocabulary: str = Field(description="fingerprint")
    training: dict[str, JsonValue] = Field({}, description="facts for people: data, command, commit, figures")
    cellular: str = Field(__version__, description="release that wrote it")


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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = checkpoint.model
    config = _Config(
        text_to_text=model.config,
        vocabulary=checkpoint.vocabulary.fingerprint,
        training=checkpoint.training,
    )
    weights = {
        name: weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.named_parameters()
    }
    write_atomically(folder / WEIGHTS, save(weights))
    write_atomically(folder / VOCABULARY, checkpoint.vocabulary.to_json())
    write_atomically(folder / CARD, (card or _card(folder.name, checkpoint)).encode())
    write_atomically(folder / CONFIG, f"{config.model_dump_json(indent=2)}\n".encode())


def load_text_to_text(folder_or_name: Path | str = DEFAULT_CHECKPOINT) -> TextToTextCheckpoint:
    """Read a checkpoint by name or folder; the model is on the processor and set to evaluate.

    Raises:
        CellularError: it is not there, is damaged, or is another release's.
    """
    folder = find_checkpoint(folder_or_name)
    config = read_config(folder / CONFIG, _Config, f"a text-to-text model's of format {FORMAT}")
    vocabulary = Vocabulary.from_file(folder / VOCABULARY)
    if vocabulary.fingerprint != config.vocabulary:
        raise CellularError(f"{folder / VOCABULARY} is not the one that its {CONFIG} names: restore both")
    with torch.random.fork_rng(devices=[]):  # a program's own random numbers stay as they are
        model = CCT(config.text_to_text)
    weights = read_tensors(folder / WEIGHTS)
    expected = {name: weight.shape for name, weight in model.named_parameters()}
    if expected != {name: weight.shape for name, weight in weights.items()}:
        raise CellularError(f"{folder / WEIGHTS} is not of the shape in its {CONFIG}: restore both")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return TextToTextCheckpoint(model.eval(), vocabulary, config.training)


def _card(name: str, checkpoint: TextToTextCheckpoint) -> str:
    """A model card of what the checkpoint knows."""
    facts = {
        "parameters": f"{checkpoint.model.count_parameters()['all']:,}",
        "tasks": ", ".join(checkpoint.model.config.tasks),
        **checkpoint.training,
    }
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return f"# {name}\n\nText to text through a 3D lattice of cells, with no teacher.\n\n{lines}\n"
