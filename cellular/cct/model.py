"""Text to text through the lattice: encoder, lattice, decoder, trained as one.

Shapes: B texts, S pieces of the source with END, L pieces of the target, E embedding dimension, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.cct.config import CCTConfig
from cellular.cct.decoder import Decoder
from cellular.cct.encoder import Encoder
from cellular.lattice import Lattice3D


class CCT(nn.Module):
    """The weights and the full pass.

    What is to be done with a text is a learned vector a task, added to the embedding that enters the lattice:
    encoder and decoder do not know the task, the lattice does the work.
    """

    def __init__(self, config: CCTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CCTConfig()
        self.encoder = Encoder(config)
        self.tasks = nn.Parameter(torch.zeros(len(config.tasks), config.embedding_dimension))
        self.lattice = Lattice3D(config.lattice)
        self.decoder = Decoder(config)

    def forward(self, sources_BS: Tensor, tasks_B: Tensor, pieces_BL: Tensor) -> Tensor:
        """(B, L + 1, V) float32 logits of the target's pieces; row 0 is for the first.

        Args:
            sources_BS: (B, S) int64; each text ends with END, and END pads it.
            tasks_B: (B,) int64, numbers of the tasks in the settings.
            pieces_BL: (B, L) int64, the target's pieces.
        """
        logits_BTV: Tensor = self.decoder(self.transform(self.encoder(sources_BS), tasks_B), pieces_BL)
        return logits_BTV

    def transform(self, embeddings_BE: Tensor, tasks_B: Tensor) -> Tensor:
        """(B, E) float32 of unit length: what the lattice makes of the encoder's embeddings."""
        told_BE = embeddings_BE + F.embedding(tasks_B, self.tasks)
        result_BE: Tensor = self.lattice(F.normalize(told_BE, dim=-1))
        return result_BE

    def count_parameters(self) -> dict[str, int]:
        """Numbers of parameters of each part, then of all."""
        parts = {
            name: sum(weight.numel() for weight in part.parameters()) for name, part in self.named_children()
        }
        return {**parts, "tasks": self.tasks.numel(), "all": sum(parts.values()) + self.tasks.numel()}
