"""Checkpoints: what is saved comes back, and nothing else is taken for one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cellular.decoders.ret import RET, Checkpoint, TeacherInfo, Vocabulary, load_checkpoint, save_checkpoint
from cellular.errors import CellularError

TEACHER = TeacherInfo(name="some-model", fingerprint="some:0123456789abcdef", dimension=384)


@pytest.fixture
def folder(tmp_path: Path, make_model: Callable[..., RET]) -> Path:
    training = {"data": "captions", "steps": 7}
    save_checkpoint(tmp_path / "mine", Checkpoint(make_model(), Vocabulary.load(), TEACHER, training))
    return tmp_path / "mine"


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def edit_tensor(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    edited = {key: value for key, value in tensors.items() if key != name}
    save_file(edited | ({} if tensor is None else {name: tensor}), folder / "model.safetensors")


@pytest.mark.parametrize("dimension", [384, 768])
def test_what_is_saved_comes_back(tmp_path: Path, make_model: Callable[..., RET], dimension: int) -> None:
    saved = Checkpoint(make_model(dimension, 3), Vocabulary.load(), TEACHER, {"loss": 1.5, "steps": 7})
    save_checkpoint(tmp_path, saved)
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.config == saved.model.config
    assert (loaded.teacher, loaded.training, loaded.precision) == (TEACHER, saved.training, "fp32")
    assert loaded.vocabulary.pieces == saved.vocabulary.pieces
    for name, tensor in saved.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)


@pytest.mark.parametrize(("precision", "kilobytes"), [("bf16", 1_460), ("int8", 740), ("int4", 450)])
def test_a_smaller_precision_makes_a_smaller_file_of_near_weights(
    tmp_path: Path, make_model: Callable[..., RET], precision: Any, kilobytes: int
) -> None:
    model = make_model()
    save_checkpoint(tmp_path, Checkpoint(model, Vocabulary.load(), TEACHER, precision=precision))
    loaded = load_checkpoint(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < kilobytes * 1_000
    assert loaded.precision == precision and loaded.model.mlp_in.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(loaded.model.mlp_in, model.mlp_in).min() > 0.98


def test_loading_leaves_the_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_checkpoint(folder)
    assert torch.equal(torch.rand(1), expected)


def test_a_checkpoint_can_be_replaced(folder: Path, make_model: Callable[..., RET]) -> None:
    save_checkpoint(
        folder, Checkpoint(make_model(applications=5), Vocabulary.load(), TEACHER), card="# Mine\n"
    )
    assert load_checkpoint(folder).model.config.applications == 5
    assert (folder / "README.md").read_text() == "# Mine\n"
    names = {"model.safetensors", "config.json", "vocabulary.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names


def test_the_model_card_tells_teacher_and_training(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("# mine\n")
    assert all(fact in card for fact in (TEACHER.fingerprint, "data: captions", "steps: 7"))


class TestMistakes:
    def refused(self, folder: Path | str, message: str) -> None:
        with pytest.raises(CellularError, match=message) as error:
            load_checkpoint(folder)
        assert "\n" not in str(error.value)

    def test_no_such_checkpoint(self, tmp_path: Path) -> None:
        self.refused(tmp_path, r"no checkpoint .*config\.json")
        self.refused("ret-all-MiniLM-L66", "no checkpoint ret-all-MiniLM-L66")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": 2}, "format"),
            ({"model": {"embedding_dimension": 512}}, "embedding_dimension"),
            ({"model": {"heads": 4}}, "heads"),
            ({"precision": "int3"}, "precision"),
            ({"teacher": {"name": "x"}}, "teacher.fingerprint"),
            ({"vocabulary": "0"}, "not the one"),
        ],
    )
    def test_another_configuration(self, folder: Path, changes: dict[str, Any], message: str) -> None:
        edit_config(folder, **changes)
        self.refused(folder, message)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
    def test_a_configuration_that_is_none(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        self.refused(folder, r"config\.json is not a checkpoint's")

    @pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        self.refused(folder, rf"{name}.*No such file")

    def test_weights_cut_off(self, folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:-100])
        self.refused(folder, r"model\.safetensors is damaged")

    @pytest.mark.parametrize(
        ("name", "tensor"),
        [
            ("mlp_in", None),
            ("mlp_in", torch.zeros(384, 255)),
            ("mlp_in", torch.zeros(384, 256, dtype=torch.float64)),
            ("mlp_in", torch.full((384, 256), torch.nan)),
            ("output_bias", torch.full((256,), torch.inf)),
            ("secret_table", torch.zeros(9)),
        ],
    )
    def test_other_tensors(self, folder: Path, name: str, tensor: torch.Tensor | None) -> None:
        edit_tensor(folder, name, tensor)
        self.refused(folder, name)

    def test_a_pickle_is_not_read(self, folder: Path) -> None:
        torch.save({"mlp_in": torch.zeros(3)}, folder / "model.safetensors")
        self.refused(folder, "damaged")
