"""Guides: trained models whose mean output a training's soft labels follow, found once for each text.

They read the undamaged embedding and all that came before (Lopez-Paz et al. 2016, Unifying distillation and
privileged information), so that what they answer stays the same over the training.

Shapes: N texts, E embedding dimension, B rows at a time, H earlier embeddings.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.checkpoint_files import find_checkpoint
from cellular.lattice import Lattice3D
from cellular.mapping_checkpoint import load_lattice_or_mlp
from cellular.mlp import MLP, MLPCheckpoint
from cellular.training.groups import Groups

ROWS = 1_024  # at a time, on a GPU: as many as a pass of training
CPU_ROWS = 128  # a lattice's states of more leave a processor's caches


def load_guide(folder_or_name: Path | str) -> tuple[Lattice3D | MLP, str]:
    """The lattice or the MLP of a checkpoint, set to evaluate, and the teacher whose embeddings it reads.

    Raises:
        CellularError: there is none, it is damaged, or of another kind or release.
    """
    checkpoint = load_lattice_or_mlp(find_checkpoint(folder_or_name))
    module = checkpoint.mlp if isinstance(checkpoint, MLPCheckpoint) else checkpoint.lattice
    return module, checkpoint.teacher


@torch.no_grad()
def guided(guides: Sequence[nn.Module], groups: Groups, history: int) -> Tensor | None:
    """(N, E) float16, unit length: the guides' mean answer to each text; None without guides."""
    if not guides:
        return None
    embeddings_NE = groups.texts.embeddings_NE
    guided_NE, count = torch.empty_like(embeddings_NE), len(embeddings_NE)
    size = ROWS if embeddings_NE.is_cuda else CPU_ROWS
    for rows_B in torch.split(torch.arange(count, device=embeddings_NE.device), size):
        earlier = groups.earlier(rows_B, history)
        answers = [
            guide(embeddings_NE[rows_B].float(), *(earlier if history and reads_history(guide) else ()))
            for guide in guides
        ]
        guided_NE[rows_B] = F.normalize(torch.stack(answers).mean(0), dim=1).to(guided_NE.dtype)
    return guided_NE


def reads_history(guide: nn.Module) -> bool:
    """Whether it can be given earlier texts; an MLP leaves what it does not read."""
    return not isinstance(guide, Lattice3D) or guide.history is not None
