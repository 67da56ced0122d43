import shutil
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellular.batches import token_batches
from cellular.config import TeacherConfig
from cellular.encoders import Encoder, OpenVINOEncoder, available_threads
from cellular.errors import CellularError
from cellular.graphs import UnsupportedModelError, exported, load_sentence_transformer
from cellular.teachers import find_model, fingerprint
from cellular.torch_encoders import TorchEncoder
from cellular.types import FloatArray

MODEL = "all-MiniLM-L6-v2"


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 1000))
def test_token_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget


def test_threads_are_what_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = available_threads()
    assert cores >= 1
    for granted, expected in (("1", 1), ("100000", cores), ("none", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", granted)
        assert available_threads() == expected


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """1,000 sentences of Python's own documentation, and one longer than the model reads."""
    text = " ".join(" ".join(topics.values()).split())
    found = [sentence.strip() for sentence in text.split(". ") if 20 < len(sentence) < 120]
    return [*found[:999], " ".join(found[:60])]


@pytest.fixture(scope="module")
def expected(sentences: list[str]) -> FloatArray:
    """What sentence-transformers gives."""
    model = load_sentence_transformer(find_model(MODEL), "cpu")
    vectors: FloatArray = model.encode(sentences, normalize_embeddings=True, show_progress_bar=False)
    return vectors


@pytest.fixture(scope="module")
def graph() -> Path:
    folder = find_model(MODEL)
    return exported(folder, fingerprint(folder))


def cosines(left: FloatArray, right: FloatArray) -> FloatArray:
    return (left * right).sum(axis=1)


@pytest.mark.teacher
class TestAgainstSentenceTransformers:
    def test_fp32_is_the_same(self, graph: Path, sentences: list[str], expected: FloatArray) -> None:
        encoder = OpenVINOEncoder(graph, TeacherConfig(precision="fp32"))
        assert cosines(encoder.encode(sentences), expected).min() >= 0.99999

    def test_bf16_is_close(self, graph: Path, sentences: list[str], expected: FloatArray) -> None:
        encoder = OpenVINOEncoder(graph, TeacherConfig(precision="bf16"))
        cosine = cosines(encoder.encode(sentences), expected)
        assert cosine.mean() >= 0.9999
        assert cosine.min() >= 0.999

    def test_torch_is_the_same(self, sentences: list[str], expected: FloatArray) -> None:
        model = load_sentence_transformer(find_model(MODEL), "cpu")
        encoder = TorchEncoder(model, TeacherConfig())
        assert encoder.precision == "fp32"
        assert cosines(encoder.encode(sentences[-40:]), expected[-40:]).min() >= 0.99999
        assert encoder.encode([]).shape == (0, 384)


@pytest.mark.teacher
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-3)])
def test_a_vector_does_not_depend_on_its_batch(
    graph: Path, sentences: list[str], precision: str, tolerance: float
) -> None:
    config = TeacherConfig.model_validate({"precision": precision})
    encoder: Encoder = OpenVINOEncoder(graph, config)
    texts = sentences[:64]
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=tolerance)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path


@pytest.mark.teacher
def test_a_damaged_graph_is_exported_again(graph: Path, cache: Path) -> None:
    copy = shutil.copytree(graph, cache / "cellular" / "graphs" / graph.name)
    with (copy / "graph.bin").open("r+b") as weights:
        weights.seek(1000)
        weights.write(b"\0" * 1000)
    folder = find_model(MODEL)
    assert exported(folder, fingerprint(folder)) == copy
    assert (copy / "graph.bin").read_bytes() == (graph / "graph.bin").read_bytes()
    assert [path.name for path in copy.parent.iterdir() if path.is_dir()] == [copy.name]


@pytest.mark.teacher
def test_a_model_with_other_modules_is_not_exported(tmp_path: Path, cache: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dropout

    model = load_sentence_transformer(find_model(MODEL), "cpu")
    model.append(Dropout(0.1))
    model.save(str(tmp_path / "model"), create_model_card=False)
    with pytest.raises(UnsupportedModelError, match="Transformer, Pooling, Normalize, Dropout"):
        exported(tmp_path / "model", "model:0")


@pytest.mark.teacher
def test_an_unwritable_cache_is_named(cache: Path) -> None:
    (cache / "cellular").touch()
    with pytest.raises(CellularError, match="set XDG_CACHE_HOME"):
        exported(find_model(MODEL), "model:0")
