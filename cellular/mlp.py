"""The plain way from embeddings to embeddings, to compare a lattice with: two hidden layers.

FOLDER/
  model.safetensors   the weights, float32
  config.json         what they are; written last

Shapes: B embeddings, E embedding dimension, N earlier embeddings.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from cellular.checkpoint_files import CheckpointConfig, as_stored, read_checkpoint, restore, write_checkpoint
from cellular.config import Settings
from cellular.training.config import Share


class MLPConfig(Settings):
    """Shape of an MLP."""

    embedding_dimension: PositiveInt = 384
    hidden: PositiveInt = Field(description="width of both hidden layers")
    history: NonNegativeInt = Field(0, description="earlier embeddings that are read beside the last")
    dropout: Share = Field(0.0, description="of the numbers of the hidden layers, in training")
    skip: bool = Field(False, description="whether the output begins as the embedding that is read")


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
        self.kept = nn.Parameter(torch.ones(config.embedding_dimension)) if config.skip else None
        if config.skip:
            nn.init.normal_(self.leave.weight, std=0.2 / config.hidden**0.5)

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
        output_BE = self.leave(self.dropout(F.gelu(self.middle(hidden))))
        if self.kept is not None:
            output_BE = output_BE + self.kept * scaled[:, -embeddings_BE.shape[1] :].to(dtype)
        return F.normalize(output_BE.float(), dim=-1)


def equal_width(parameters: int, embedding_dimension: int, history: int = 0) -> int:
    """Width of the hidden layers of the largest MLP of no more than so many parameters."""
    linear = embedding_dimension * (2 + history) + 2
    return max(1, (math.isqrt(linear**2 + 4 * (parameters - embedding_dimension)) - linear) // 2)


class _Config(CheckpointConfig):
    kind = "an MLP's"

    mlp: MLPConfig
    teacher: str = Field(description="fingerprint of the space that is read and written")


@dataclass(frozen=True)
class MLPCheckpoint:
    """An MLP and the embeddings it was made for."""

    mlp: MLP
    teacher: str
    training: dict[str, JsonValue] = field(default_factory=dict)


def save_mlp(folder: Path | str, checkpoint: MLPCheckpoint) -> None:
    """Write a folder, made if need be; one that is there is replaced file by file."""
    mlp, teacher, training = checkpoint.mlp, checkpoint.teacher, checkpoint.training
    config = _Config(mlp=mlp.config, teacher=teacher, training=training)
    write_checkpoint(folder, config, as_stored(mlp, torch.float32))


def load_mlp(folder_or_name: Path | str) -> MLPCheckpoint:
    """Read a folder that `save_mlp` wrote; the MLP is set to evaluate.

    Raises:
        CellularError: it is not there, is damaged, or is another release's.
    """
    folder, config = read_checkpoint(folder_or_name, _Config)
    return MLPCheckpoint(restore(folder, partial(MLP, config.mlp)), config.teacher, config.training)
