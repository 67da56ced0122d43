"""Texts to vectors by the kernel in C."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellular.batches import WINDOW, tokenised
from cellular.bert_engine.library import Kernel
from cellular.bert_engine.weights import Precision, read_weights
from cellular.graphs import PROBES, UnsupportedModelError
from cellular.types import FloatArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CHUNK = 256  # tokens that a thread takes through all layers: what lies between them fits its cache
_LEAST_COSINE = 0.9998


class BertEncoder:
    """A BERT with mean pooling, of which a vector is bit for bit the same in any company.

    Args:
        folder: of the model, for its weights.
        graph: its exported graph, for its tokenizer and prompt.
        precision: "bf16", "bf16x2" or "fp32".
        threads: that share the texts of a call.

    Raises:
        UnsupportedModelError: another kind of model, or of processor.
        CellularError: the kernel cannot be compiled.
    """

    engine = "C"
    neighbour_agreement: float | None = None

    def __init__(self, folder: Path, graph: Path, precision: Precision, threads: int) -> None:
        from tokenizers import Tokenizer

        settings = json.loads((graph / "graph.json").read_text(encoding="utf-8"))
        self.dimension: int = settings["dimension"]
        self.precision = precision
        self._prompt: str = settings["prompt"]
        self._tokenizer = Tokenizer.from_file(str(graph / "tokenizer.json"))
        self._threads = threads
        weights = read_weights(folder, precision)
        _check_tokenizer(self._tokenizer, *weights.words_VH.shape[:1], *weights.places_PH.shape[:1])
        self._kernel = Kernel(weights, precision)
        cosine = float((self.encode(PROBES) * np.array(settings["probes"])).sum(axis=1).min())
        if not cosine > _LEAST_COSINE:
            raise UnsupportedModelError(f"the kernel gives other vectors (cosine {cosine:.5f})")

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) float32 of unit length."""
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), WINDOW):
            tokens = tokenised(
                self._tokenizer, [self._prompt + text for text in texts[start : start + WINDOW]]
            )
            vectors[start : start + WINDOW] = self._kernel.run(tokens, _CHUNK, self._threads)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def _check_tokenizer(tokenizer: "Tokenizer", words: int, places: int) -> None:
    """The kernel looks up any number of a word or a place unchecked."""
    longest = tokenizer.truncation and tokenizer.truncation["max_length"]
    if not longest or longest > places:
        raise UnsupportedModelError(f"its texts may have more than {places} tokens")
    if max(tokenizer.get_vocab().values()) >= words:
        raise UnsupportedModelError(f"its tokenizer has more than {words} words")
