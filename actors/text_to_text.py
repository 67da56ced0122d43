"""Text to text as a worker: one checkpoint, texts to texts."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cellular import cct
from cellular.cct.checkpoint import WEIGHTS
from cellular.checkpoint_files import find_checkpoint
from cellular.decoders.ret import MAX_PIECES
from cellular.files import sha256_file


class TextOptions(NamedTuple):
    """What a request may ask for."""

    task: str | None = None
    """one of the model's; None: its first"""
    max_length: int | None = None
    """pieces after which a text is cut off; None: the default"""


class TextToText:
    """Holds one text-to-text model.

    Args:
        checkpoint: name or folder.

    Raises:
        CellularError: the checkpoint is missing or damaged.
    """

    def __init__(self, checkpoint: str = cct.DEFAULT_CHECKPOINT) -> None:
        self.folder = find_checkpoint(checkpoint)
        self.model = cct.TextToText.load(self.folder)
        self.generate(["warm"], TextOptions(max_length=2))  # no request waits for a first pass

    def generate(self, texts: Sequence[str], options: TextOptions = TextOptions()) -> list[str]:
        """What texts become; ValueError for texts and options that `cellular.cct.TextToText` refuses."""
        return self.model.generate(texts, options.max_length or MAX_PIECES, options.task)

    def stream(self, texts: Sequence[str], options: TextOptions = TextOptions()) -> Iterator[tuple[int, str]]:
        """Write the answers one after the other: number of the text, increment."""
        for number, text in enumerate(texts):
            for increment in self.model.stream(text, options.max_length or MAX_PIECES, options.task):
                yield number, increment

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return {
            "text_to_text": {
                "name": self.folder.name,
                "fingerprint": sha256_file(self.folder / WEIGHTS)[:16],
                "dimension": self.model.model.config.embedding_dimension,
                "tasks": list(self.model.tasks),
                "parameters": self.model.model.count_parameters()["all"],
            }
        }
