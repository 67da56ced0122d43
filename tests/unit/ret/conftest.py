"""A decoder small enough to be trained here, and one thread to do it in."""

import os
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from cellular.decoders.ret import RET, RETConfig, RETDecoder, TorchEngine, Vocabulary
from cellular.types import FloatArray

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
runs_kernels = pytest.mark.skipif(
    find_spec("triton") is None or (DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1"),
    reason="needs Triton, and a GPU or TRITON_INTERPRET=1",
)


@pytest.fixture(scope="session")
def make_embeddings() -> Callable[..., FloatArray]:
    def make(count: int, dimension: int = 384) -> FloatArray:
        rows = np.random.default_rng(count).normal(size=(count, dimension)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., RET]:
    """Untrained models whose every parameter tells in the logits."""

    def make(dimension: int = 384, applications: int = 2) -> RET:
        config = RETConfig.model_validate({"embedding_dimension": dimension, "applications": applications})
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = RET(config)
            for parameter in (model.step_gain, model.output_bias):
                torch.nn.init.normal_(parameter, std=0.5)
        return model

    return make


@pytest.fixture(scope="session")
def known_texts(topic_sentences: list[str]) -> list[str]:
    """Short and long ones."""
    plain = [line for line in topic_sentences if line.replace(" ", "").isalpha()]
    return sorted(plain, key=len)[:48:6]


@pytest.fixture(scope="session")
def known_embeddings(known_texts: list[str], make_embeddings: Callable[..., FloatArray]) -> FloatArray:
    """A random direction for each known text."""
    return make_embeddings(len(known_texts))


@pytest.fixture(scope="session")
def mixed_embeddings(known_embeddings: FloatArray) -> FloatArray:
    """64 directions between the known ones: texts of uneven length and quality."""
    weights = np.random.default_rng(1).dirichlet(np.full(len(known_embeddings), 0.2), 64)
    rows = (weights @ known_embeddings).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def memorised(
    known_texts: list[str], known_embeddings: FloatArray, make_model: Callable[..., RET]
) -> RETDecoder:
    """A decoder that writes the known texts from their embeddings."""
    vocabulary, model = Vocabulary.load(), make_model()
    ids = [torch.from_numpy(ids.astype(np.int64)) for ids in vocabulary.encode_batch(known_texts)]
    pieces_BL = pad_sequence(ids, batch_first=True)
    written_BT = F.pad(pieces_BL != 0, (1, 0), value=True)
    targets = F.pad(pieces_BL, (0, 1))[written_BT]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        logits = model(torch.from_numpy(known_embeddings), pieces_BL)[written_BT]
        losses = F.cross_entropy(logits, targets, reduction="none")
        if losses.max().item() < 0.3:  # no text is nearly as likely as a known one
            break
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return RETDecoder(TorchEngine(model), model, vocabulary)
