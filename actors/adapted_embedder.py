"""Another teacher and an adapter as a worker: texts to embeddings of the space that is served."""

from collections.abc import Sequence
from typing import Any

from cellular.adapter import UniversalAdapter
from cellular.checkpoint_files import find_checkpoint, weights_fingerprint
from cellular.config import TeacherConfig
from cellular.teachers import load_teacher
from cellular.types import FloatArray


class AdaptedEmbedder:
    """Holds an adapter, and the teacher whose embeddings it reads.

    Args:
        adapter: name or folder.

    Raises:
        CellularError: one of them is missing or damaged, or they do not fit.
    """

    def __init__(self, adapter: str) -> None:
        self.folder = find_checkpoint(adapter)
        self.adapter = UniversalAdapter.load(self.folder)
        self.teacher = load_teacher(TeacherConfig(name=self.adapter.source.name))
        self.adapter.check_source(self.teacher.fingerprint)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts, (N, D) float32 of unit length."""
        return self.adapter(self.teacher.encode(texts))

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return {
            "name": self.folder.name,
            "fingerprint": weights_fingerprint(self.folder),
            "source": self.adapter.source.model_dump(),
            "target": self.adapter.target.model_dump(),
            "strategy": self.adapter.strategy,
        }
