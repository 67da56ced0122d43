"""The forward pass of a sentence-transformers model."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.types import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Encoder(Protocol):
    """Texts in, unit vectors out."""

    @property
    def dimension(self) -> int:
        """D of the vectors."""

    @property
    def precision(self) -> str:
        """The arithmetic it computes in."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) float32 of unit length; (0, D) for no texts."""


class TorchEncoder:
    """sentence-transformers itself."""

    precision = "fp32"

    def __init__(self, model: "SentenceTransformer", config: TeacherConfig) -> None:
        self._model = model
        dimension = model.get_embedding_dimension()
        if dimension is None:
            raise CellularError(f"teacher {config.name} does not say the dimension of its vectors")
        self.dimension = dimension

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(N, D) float32 of unit length."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        vectors: FloatArray = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return vectors


def load_encoder(folder: Path, fingerprint: str, config: TeacherConfig) -> Encoder:
    """The fastest encoder that this machine has for the model in a folder."""
    return TorchEncoder(load_sentence_transformer(folder, "cpu"), config)


def load_sentence_transformer(folder: Path, device: str) -> "SentenceTransformer":
    """The model as sentence-transformers loads it: no network, no code of its own, no pickle, no noise."""
    from sentence_transformers import SentenceTransformer

    with _quiet():
        return SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading without transformers' progress bars and warnings."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
