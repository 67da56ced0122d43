"""Text to text as a worker: one checkpoint, texts to texts."""

from collections.abc import Iterator, Sequence
from typing import Any

from actors.decoding import TextOptions
from cellular import cct
from cellular.checkpoint_files import find_checkpoint, weights_fingerprint
from cellular.decoders.ret import MAX_PIECES


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

    def generate(self, texts: Sequence[str], options: TextOptions = TextOptions()) -> list[str | None]:
        """What texts become; None for one of too many pieces, since the others shall have their answers.

        Raises:
            ValueError: an unknown task, or a text that is no Unicode.
        """
        fitting = [text for text in texts if self._fits(text)]
        written = iter(self.model.generate(fitting, options.max_length or MAX_PIECES, options.task))
        return [next(written) if self._fits(text) else None for text in texts]

    def stream(
        self, texts: Sequence[str], options: TextOptions = TextOptions()
    ) -> Iterator[tuple[int, str | None]]:
        """Write the answers one after the other: number of the text, increment; None as in `generate`."""
        for number, text in enumerate(texts):
            if not self._fits(text):
                yield number, None
                continue
            for increment in self.model.stream(text, options.max_length or MAX_PIECES, options.task):
                yield number, increment

    def _fits(self, text: str) -> bool:
        return len(self.model.vocabulary.encode(text)) <= cct.MAX_SOURCE

    def describe(self) -> dict[str, Any]:
        """What this worker answers from."""
        return {
            "text_to_text": {
                "name": self.folder.name,
                "fingerprint": weights_fingerprint(self.folder),
                "dimension": self.model.model.config.embedding_dimension,
                "tasks": list(self.model.tasks),
                "max_pieces": cct.MAX_SOURCE,
                "parameters": self.model.model.count_parameters()["all"],
            }
        }
