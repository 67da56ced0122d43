"""The lattice as a worker: one checkpoint, embeddings to embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cellular.checkpoint_files import find_checkpoint, weights_fingerprint
from cellular.lattice import load_lattice, record_states
from cellular.lattice.inference import placed, process
from cellular.types import FloatArray


class Lattice:
    """Holds one lattice.

    Args:
        checkpoint: name or folder.

    Raises:
        CellularError: the checkpoint is missing or damaged.
    """

    def __init__(self, checkpoint: Path | str) -> None:
        self.folder = find_checkpoint(checkpoint)
        self.checkpoint = load_lattice(self.folder)
        placed(self.checkpoint.lattice)
        self.process(np.eye(1, self.dimension, dtype=np.float32))  # no request waits for a first pass

    @property
    def dimension(self) -> int:
        """E of the embeddings."""
        return self.checkpoint.lattice.config.embedding_dimension

    def process(self, embeddings: FloatArray, earlier: Sequence[FloatArray] | None = None) -> FloatArray:
        """What the lattice makes of (N, E) float32 embeddings: (N, E) float32 of unit length.

        Args:
            embeddings: of the lattice's teacher.
            earlier: for each of the N rows the (turns, E) embeddings before it in its dialogue, oldest first.

        Raises:
            ValueError: bad embeddings, or turns for a lattice without history.
        """
        return process(self.checkpoint.lattice, embeddings, earlier)

    def process_turns(self, dialogues: Sequence[FloatArray]) -> FloatArray:
        """What the lattice makes of the last of each dialogue's (turns, E) embeddings: (N, E) float32."""
        return self.process(np.stack([turns[-1] for turns in dialogues]), [turns[:-1] for turns in dialogues])

    def states(self, embeddings: FloatArray) -> list[FloatArray]:
        """Norms of the cells before the first step and after each: (steps + 1, X, Y, Z) for each row."""
        states_TBXYZC = record_states(self.checkpoint.lattice, torch.from_numpy(embeddings))
        return list(states_TBXYZC.norm(dim=-1).movedim(0, 1).contiguous().numpy())

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return {
            "teacher": {"fingerprint": self.checkpoint.teacher},
            "lattice": {
                "name": self.folder.name,
                "fingerprint": weights_fingerprint(self.folder),
                "dimension": self.dimension,
                "steps": self.checkpoint.lattice.config.steps,
                "history": self.checkpoint.lattice.config.history is not None,
                "teacher": self.checkpoint.teacher,
            },
        }
