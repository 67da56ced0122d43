"""What the tests of training share."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.teachers import HashTeacher
from cellular.training.buckets import Texts

SENTENCES = [
    "The cat sat on the mat.",
    "A dog barked all night.",
    "Rain is falling.",
    "We go home.",
    "Two men are talking near a car in the street.",
]


def learnable(texts: Sequence[str]) -> Texts:
    """Texts as a worker holds them."""
    pieces = Vocabulary.load().encode_batch(texts)
    starts = np.cumsum([0, *map(len, pieces)])
    embeddings = torch.from_numpy(HashTeacher(384).encode(texts)).half()
    return Texts(torch.from_numpy(np.concatenate(pieces)), torch.from_numpy(starts), embeddings)


@pytest.fixture
def texts() -> Texts:
    return learnable(SENTENCES)


def of_lengths(lengths: Sequence[int]) -> Texts:
    """Texts of so many pieces each; text number n is written with piece n + 2 alone."""
    pieces = torch.cat([torch.full((length,), 2 + number) for number, length in enumerate(lengths)])
    starts = torch.tensor(np.cumsum([0, *lengths]))
    embeddings = torch.nn.functional.normalize(torch.randn(len(lengths), 384), dim=1)
    return Texts(pieces.to(torch.uint8), starts, embeddings.half())
