"""What was said before joins what is said now: a dialogue's turns are one sequence of Mamba's.

Shapes: B embeddings, N turns before each, E embedding dimension, W width of the sequence, F numbers that the
input face is given.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.lattice.config import LatticeConfig
from cellular.ssm.block import MambaBlock


class History(nn.Module):
    """The turns up to the present one, oldest first, through a Mamba block; its last output goes to the face.

    The present turn ends the sequence, so that what is remembered may depend on it. It enters the face
    through `ProjectIn` besides.
    """

    def __init__(self, config: LatticeConfig, width: int) -> None:
        super().__init__()
        _, *face = config.size
        self.scale = config.embedding_dimension**0.5
        self.enter = nn.Linear(config.embedding_dimension, width, bias=False)
        self.block = MambaBlock(width)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.leave = nn.Linear(width, face[0] * face[1] * config.face_channels, bias=False)
        nn.init.kaiming_normal_(self.enter.weight, nonlinearity="linear")
        nn.init.normal_(self.leave.weight, std=0.1 / width**0.5)

    def forward(self, embeddings_BE: Tensor, earlier_BNE: Tensor | None, present_BN: Tensor | None) -> Tensor:
        """(B, F): what is added to the numbers that make the face. Absent turns change nothing."""
        turns_BNE = embeddings_BE[:, None]
        if earlier_BNE is not None:
            turns_BNE = torch.cat([earlier_BNE.to(turns_BNE.dtype), turns_BNE], 1)
        if present_BN is not None:
            present_BN = F.pad(present_BN, (0, 1), value=True)
        turns_BNW = self.enter(turns_BNE.to(self.enter.weight.dtype) * self.scale)
        last_BW = (turns_BNW + self.block(turns_BNW, present_BN))[:, -1]
        told_BF: Tensor = self.leave(self.norm(last_BW))
        return told_BF


def check_turns(embeddings_BE: Tensor, earlier_BNE: Tensor, present_BN: Tensor | None) -> None:
    """ValueError unless these are turns before the embeddings."""
    batch, dimension = embeddings_BE.shape
    if earlier_BNE.ndim != 3 or (len(earlier_BNE), earlier_BNE.shape[2]) != (batch, dimension):
        shape = tuple(earlier_BNE.shape)
        raise ValueError(f"earlier turns must have shape ({batch}, N, {dimension}), not {shape}")
    if not earlier_BNE.is_floating_point():
        raise ValueError(f"earlier turns must be floating point, not {earlier_BNE.dtype}")
    if present_BN is not None and (
        present_BN.shape != earlier_BNE.shape[:2] or present_BN.dtype != torch.bool
    ):
        found = f"{present_BN.dtype} {tuple(present_BN.shape)}"
        raise ValueError(f"presence must be bool {tuple(earlier_BNE.shape[:2])}, not {found}")
