"""The plain way from embeddings to embeddings, to compare a lattice with: two hidden layers.

FOLDER/
  model.safetensors   the weights, float32
  config.json         what they are; written last

Shapes: B embeddings, E embedding dimension, N earlier embeddings.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt
from safetensors.torch import save
from torch import Tensor, nn

from cellular import __version__
from cellular.checkpoint_files import CONFIG, find_checkpoint, read_config, read_tensors
from cellular.config import Settings
from cellular.errors import CellularError
from cellular.files import write_atomically
from cellular.training.config import Share

FORMAT: Final = 1
WEIGHTS = "model.safetensors"


class MLPConfig(Settings):
    """Shape of an MLP."""

    embedding_dimension: PositiveInt = 384
    hidden: PositiveInt = Field(description="width of both hidden layers")
    history: NonNegativeInt = Field(0, description="earlier embeddings that are read beside the last")
    dropout: Share = Field(0.0, description="of the numbers of the hidden layers, in training")


class MLP(nn.Module):
    """Embeddings to embeddings of unit length; earlier ones are read too, zeros where there are none."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.embedding_dimension * (1 + config.history)
        self.enter = nn.Linear(inputs, config.hidden)
        self.middle = nn.Linear(config.hidden, config.hidden)
        self.leave = nn.Linear(config.hidden, config.embedding_dimension)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, embeddings_BE: Tensor, earlier_BNE: Tensor | None = None, present_BN: Tensor | None = None
    ) -> Tensor:
        """(B, E) float32, unit length. Of what came before, the last `history` are read."""
        count, dtype = self.config.history, self.enter.weight.dtype
        before_BNE = embeddings_BE.new_zeros(len(embeddings_BE), count, embeddings_BE.shape[1])
        if count and earlier_BNE is not None and present_BN is not None and earlier_BNE.shape[1]:
            kept = min(count, earlier_BNE.shape[1])
            before_BNE[:, count - kept :] = (earlier_BNE * present_BN[..., None])[:, -kept:]
        scaled = torch.cat([before_BNE.flatten(1), embeddings_BE], 1) * math.sqrt(embeddings_BE.shape[1])
        hidden = self.dropout(F.gelu(self.enter(scaled.to(dtype))))
        return F.normalize(self.leave(self.dropout(F.gelu(self.middle(hidden)))).float(), dim=-1)


def equal_width(parameters: int, embedding_dimension: int, history: int = 0) -> int:
    """Width of the hidden layers of the largest MLP of no more than so many parameters."""
    linear = embedding_dimension * (2 + history) + 2
    return max(1, (math.isqrt(linear**2 + 4 * (parameters - embedding_dimension)) - linear) // 2)


class _Config(Settings):
    """What config.json holds."""

    format: Literal[1] = FORMAT
    mlp: MLPConfig
    teacher: str = Field(description="fingerprint of the space that is read and written")
    training: dict[str, JsonValue] = Field({}, description="facts for people: data, command, commit, figures")
    cellular: str = Field(__version__, description="release that wrote it")


@dataclass(frozen=True)
class MLPCheckpoint:
    """An MLP and the embeddings it was made for."""

    mlp: MLP
    teacher: str
    training: dict[str, JsonValue] = field(default_factory=dict)


def save_mlp(folder: Path | str, checkpoint: MLPCheckpoint) -> None:
    """Write a folder, made if need be; one that is there is replaced file by file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mlp = checkpoint.mlp
    config = _Config(mlp=mlp.config, teacher=checkpoint.teacher, training=checkpoint.training)
    weights = {name: value.detach().float().cpu().contiguous() for name, value in mlp.named_parameters()}
    write_atomically(folder / WEIGHTS, save(weights))
    write_atomically(folder / CONFIG, f"{config.model_dump_json(indent=2)}\n".encode())


def load_mlp(folder_or_name: Path | str) -> MLPCheckpoint:
    """Read a folder that `save_mlp` wrote; the MLP is set to evaluate.

    Raises:
        CellularError: it is not there, is damaged, or is another release's.
    """
    folder = find_checkpoint(folder_or_name)
    config = read_config(folder / CONFIG, _Config, f"an MLP's of format {FORMAT}")
    with torch.random.fork_rng(devices=[]):  # a program's own random numbers stay as they are
        mlp = MLP(config.mlp)
    try:
        mlp.load_state_dict(read_tensors(folder / WEIGHTS))
    except RuntimeError:
        raise CellularError(f"{folder / WEIGHTS} is not of the shape in its {CONFIG}: restore both") from None
    return MLPCheckpoint(mlp.eval(), config.teacher, config.training)
