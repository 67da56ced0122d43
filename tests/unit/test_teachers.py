import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from safetensors.numpy import save_file

from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.teachers import TEACHERS, HashTeacher, Teacher, find_model, fingerprint, load_teacher

TEXTS = ["Two dogs run.", "", "Ångström, 東京 and 🙂", "two dogs run", "a " * 400, "\0", " "]


@pytest.fixture(
    scope="module",
    params=[name if name == "hash" else pytest.param(name, marks=pytest.mark.teacher) for name in TEACHERS],
)
def teacher(request: pytest.FixtureRequest) -> Iterator[Teacher]:
    return load_teacher(request.param)


class TestEveryTeacher:
    def test_gives_unit_float32_vectors(self, teacher: Teacher) -> None:
        vectors = teacher.encode(TEXTS)
        assert vectors.shape == (len(TEXTS), teacher.dimension)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)

    def test_gives_no_vectors_for_no_texts(self, teacher: Teacher) -> None:
        assert teacher.encode([]).shape == (0, teacher.dimension)

    def test_is_deterministic(self, teacher: Teacher) -> None:
        assert teacher.encode(TEXTS).tobytes() == teacher.encode(TEXTS).tobytes()

    def test_does_not_depend_on_the_order(self, teacher: Teacher) -> None:
        np.testing.assert_allclose(teacher.encode(TEXTS[::-1])[::-1], teacher.encode(TEXTS), atol=1e-3)

    def test_puts_like_texts_near_each_other(self, teacher: Teacher) -> None:
        dogs, puppies, law = teacher.encode(["two dogs run", "two dogs are running", "The law was repealed."])
        assert dogs @ puppies > dogs @ law

    def test_names_its_space(self, teacher: Teacher) -> None:
        name, _, digits = teacher.fingerprint.rpartition(":")
        assert name
        assert len(bytes.fromhex(digits)) == 8

    def test_loads_again_by_its_name(self, teacher: Teacher) -> None:
        assert load_teacher(teacher.name).fingerprint == teacher.fingerprint

    def test_travels_to_another_process(self, teacher: Teacher) -> None:
        copy = cloudpickle.loads(cloudpickle.dumps(teacher))
        assert copy.encode(TEXTS).tobytes() == teacher.encode(TEXTS).tobytes()

    @pytest.mark.parametrize("texts", ["one string", ["a", None], ["a", b"b"], ["a", "\ud800"]])
    def test_refuses_what_is_not_text(self, teacher: Teacher, texts: list[str]) -> None:
        with pytest.raises(ValueError, match=r"not one string|texts\[1\] is"):
            teacher.encode(texts)


def test_hash_dimension_is_part_of_the_name() -> None:
    teacher = load_teacher("hash:64")
    assert (teacher.name, teacher.dimension) == ("hash:64", 64)
    assert teacher.fingerprint != HashTeacher().fingerprint
    for name in ("hash:", "hash:256"):
        assert load_teacher(name).fingerprint == HashTeacher().fingerprint
    for name in ("hash:x", "hash:0", "hash:-1"):
        with pytest.raises(CellularError, match="give the number of dimensions"):
            load_teacher(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a small model; enough for finding and naming it."""
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    kinds = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
    (model / "modules.json").write_text(json.dumps(kinds))
    (model / "config.json").write_text('{"model_type": "bert"}')
    (model / "tokenizer.json").write_text("{}")
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    save_file({"weight": np.ones(3, np.float32)}, model / "model.safetensors")
    return model


def test_fingerprint_is_of_the_content_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    (elsewhere / "README.md").write_text("words")
    assert fingerprint(elsewhere) == fingerprint(folder)
    assert fingerprint(folder).startswith("bert:")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}'),
        lambda folder: (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}'),
        lambda folder: (folder / "tokenizer.json").write_text('{"version": 2}'),
        lambda folder: save_file({"weight": np.zeros(3, np.float32)}, folder / "model.safetensors"),
    ],
    ids=["pooling", "length", "tokenizer", "weights"],
)
def test_fingerprint_follows_what_decides_the_vectors(folder: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CellularError, match="pickled weights; convert them to safetensors"):
        find_model(str(folder))


def test_code_of_a_model_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "os.path.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CellularError, match=r"os\.path\.Pooling is code of its own"):
        find_model(str(folder))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CellularError, match="no sentence-transformers folder"):
        load_teacher(str(tmp_path))


@pytest.mark.teacher  # imports torch
def test_a_damaged_model_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(CellularError, match="cannot load the model in"):
        load_teacher(str(folder))


@pytest.mark.parametrize("offline", [True, False])
def test_an_unknown_name_fails_at_once(
    offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")  # nobody listens
    with pytest.raises(CellularError, match="the hub does not give sentence-transformers/all-mpnet-base-v2"):
        load_teacher(TeacherConfig(name="all-mpnet-base-v2"))
