"""A saved text-to-text model is the same model; a damaged folder is one clear error."""

import json
from pathlib import Path

import pytest
import torch

from actors.text_to_text import TextOptions
from actors.text_to_text import TextToText as Worker
from cellular.cct import TextToText, TextToTextCheckpoint, load_text_to_text, save_text_to_text
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError

from .conftest import TEXTS, make_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "small"
    checkpoint = TextToTextCheckpoint(make_model(), Vocabulary.load(), {"steps": 7})
    save_text_to_text(path, checkpoint)
    return path


def test_loaded_as_saved(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_text_to_text(folder)
    for name, weight in make_model().named_parameters():
        assert torch.equal(checkpoint.model.get_parameter(name), weight.bfloat16().float()), name
    assert checkpoint.training == {"steps": 7}
    save_text_to_text(tmp_path / "again", checkpoint)
    for file in ("model.safetensors", "config.json", "vocabulary.json"):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()
    assert "reconstruct, reply" in (folder / "README.md").read_text()


def test_a_worker_answers_as_the_model(folder: Path) -> None:
    worker, model = Worker(str(folder)), TextToText.load(folder)
    options = TextOptions(task="reply", max_length=12)
    answers = worker.generate(TEXTS, options)
    assert answers == model.generate(TEXTS, 12, "reply")
    streamed = [""] * len(TEXTS)
    for number, increment in worker.stream(TEXTS, options):
        streamed[number] += increment
    assert streamed == answers
    about = worker.describe()["text_to_text"]
    assert (about["name"], about["dimension"], about["tasks"]) == ("small", 32, ["reconstruct", "reply"])


def test_loading_leaves_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    load_text_to_text(folder)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{}", "is not a text-to-text model's of format 1: text_to_text: Field required"),
        ("model.safetensors", b"rubbish", "is damaged"),
        ("vocabulary.json", b"[]", "no vocabulary of format 1"),
    ],
)
def test_damage_is_named(folder: Path, file: str, content: bytes, message: str) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(CellularError, match=message):
        TextToText.load(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_to_text"]["inner"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CellularError, match="not of the shape"):
        TextToText.load(folder)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(CellularError, match="no checkpoint nowhere"):
        TextToText.load("nowhere")
