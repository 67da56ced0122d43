"""Small text-to-text models, untrained, that write texts of several pieces."""

from typing import Any

import pytest
import torch

from cellular.cct import CCT, CCTConfig, TextToText
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.lattice import LatticeConfig

TEXTS = ["A dog runs.", "", "é", "Two boys play with a red ball near the old house.", " "]
SHAPE = CCTConfig(
    hidden=32,
    heads=2,
    inner=48,
    encoder_layers=2,
    decoder_layers=2,
    slots=4,
    tasks=("reconstruct", "reply"),
    lattice=LatticeConfig(
        embedding_dimension=32, size=(2, 4, 4), steps=2, channels=16, face_channels=4, update_probability=1.0
    ),
)


def make_model(**settings: Any) -> CCT:
    """Random weights of which different texts become different ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(10)
        model = CCT(SHAPE.model_copy(update=settings)).eval()
        torch.nn.init.normal_(model.tasks)
        torch.nn.init.normal_(model.decoder.pieces)
    torch.nn.init.zeros_(model.decoder.slot_codes_PD)
    return model


@pytest.fixture(scope="module")
def text_to_text() -> TextToText:
    return TextToText(make_model(), Vocabulary.load())
