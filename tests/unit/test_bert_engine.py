"""BERT in C: against sentence-transformers, in any company, and machines and models that it is not for."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from cellular.bert_engine import BertEncoder, Precision, library
from cellular.bert_engine.weights import from_bfloat16, pack, read_weights, to_bfloat16
from cellular.config import TeacherConfig
from cellular.encoders import OpenVINOEncoder, load_encoder
from cellular.graphs import UnsupportedModelError, exported, load_sentence_transformer
from cellular.teachers import find_model, fingerprint
from cellular.types import FloatArray

MODEL = "all-MiniLM-L6-v2"
ODD = ["", " ", "\0", "Ångström, 東京 and 🙂", "e\u0301" * 40, "\u202e\ufeff\u200d", "x" * 3000]
LEAST = {"fp32": 0.999999, "bf16x2": 0.99995, "bf16": 0.9999}
LEAST_MEAN = {"fp32": 0.9999999, "bf16x2": 0.999993, "bf16": 0.99999}


def has_amx() -> bool:
    try:
        library._check_processor()
    except UnsupportedModelError:
        return False
    return True


needs_amx = pytest.mark.skipif(not has_amx(), reason="a processor without AMX")


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 300))
def test_chunks_hold_every_text_once_within_the_budget(lengths: list[int], most: int) -> None:
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    bounds = library.chunk_bounds(starts, most)
    assert bounds[0] == 0 and bounds[-1] == len(lengths)
    for first, end in pairwise(bounds):
        assert end == first + 1 or (end > first and starts[end] - starts[first] <= most)


def test_a_weight_of_two_parts_has_sixteen_bits() -> None:
    numbers = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    packed = pack(numbers, 2, 32)
    assert packed.shape == (3, 2, 1, 2, 2, 16, 16, 2)
    whole = from_bfloat16(packed).astype(np.float64).sum(axis=3)  # (K/k, N/32, k/32, 2, 16, 16, 2)
    found = whole.transpose(1, 3, 5, 0, 2, 4, 6).reshape(64, 96)
    np.testing.assert_allclose(found, numbers, rtol=2**-17)


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    import torch

    numbers = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    expected = torch.from_numpy(numbers).bfloat16().float().numpy()
    assert (from_bfloat16(to_bfloat16(numbers)) == expected).all()


@pytest.fixture(scope="module")
def model() -> Path:
    return find_model(MODEL)


@pytest.fixture(scope="module")
def graph(model: Path) -> Path:
    return exported(model, fingerprint(model))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Sentences of Python's own documentation, texts longer than the model reads, and odd ones."""
    text = " ".join(" ".join(topics.values()).split())
    found = [sentence.strip() for sentence in text.split(". ") if 20 < len(sentence) < 400]
    return [*found[:400], " ".join(found[:60]), *ODD]


@pytest.fixture(scope="module")
def expected(model: Path, texts: list[str]) -> FloatArray:
    transformer = load_sentence_transformer(model, "cpu")
    vectors: FloatArray = transformer.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    return vectors


@pytest.fixture(scope="module", params=["bf16", "bf16x2", "fp32"])
def precision(request: pytest.FixtureRequest) -> Precision:
    given: Precision = request.param
    return given


@pytest.fixture(scope="module")
def encoder(model: Path, graph: Path, precision: Precision) -> BertEncoder:
    return BertEncoder(model, graph, precision, threads=2)


@needs_amx
@pytest.mark.teacher
class TestEncoder:
    def test_gives_sentence_transformers_vectors(
        self, encoder: BertEncoder, texts: list[str], expected: FloatArray
    ) -> None:
        cosine = (encoder.encode(texts) * expected).sum(axis=1)
        assert cosine.min() >= LEAST[encoder.precision]
        assert cosine.mean() >= LEAST_MEAN[encoder.precision]

    def test_a_vector_does_not_depend_on_the_others(self, encoder: BertEncoder, texts: list[str]) -> None:
        together = encoder.encode(texts)
        alone = np.concatenate([encoder.encode([text]) for text in texts])
        backwards = encoder.encode(texts[::-1])[::-1]
        assert together.tobytes() == alone.tobytes() == backwards.tobytes()

    @pytest.mark.parametrize("threads", [1, 3, 16])
    def test_nor_on_the_threads(
        self, encoder: BertEncoder, texts: list[str], threads: int, model: Path, graph: Path
    ) -> None:
        other = BertEncoder(model, graph, encoder.precision, threads)
        assert other.encode(texts).tobytes() == encoder.encode(texts).tobytes()

    def test_may_be_called_by_several_threads(self, encoder: BertEncoder, texts: list[str]) -> None:
        parts = [texts[start::4] for start in range(4)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(encoder.encode, parts))
        for part, vectors in zip(parts, found, strict=True):
            assert vectors.tobytes() == encoder.encode(part).tobytes()

    def test_gives_unit_vectors_and_none_for_no_texts(self, encoder: BertEncoder) -> None:
        assert encoder.encode([]).shape == (0, 384)
        np.testing.assert_allclose(np.linalg.norm(encoder.encode(ODD), axis=1), 1, atol=1e-6)


@needs_amx
@pytest.mark.teacher
def test_is_what_loads(model: Path) -> None:
    space = fingerprint(model)
    for precision, expected in (("auto", "bf16"), ("fp32", "fp32"), ("bf16", "bf16")):
        encoder = load_encoder(model, space, TeacherConfig.model_validate({"precision": precision}))
        assert (encoder.engine, encoder.precision) == ("C", expected)


@pytest.fixture
def forgotten() -> Iterator[None]:
    library._library.cache_clear()
    yield
    library._library.cache_clear()


@pytest.mark.teacher
def test_without_a_compiler_openvino_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    encoder = load_encoder(model, fingerprint(model), TeacherConfig(precision="fp32"))
    assert isinstance(encoder, OpenVINOEncoder)
    assert encoder.encode(["a"]).shape == (1, 384)


@pytest.mark.teacher
def test_without_amx_openvino_runs(model: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None) -> None:
    monkeypatch.setattr(library, "_FEATURES", {"no_such_feature"})
    assert load_encoder(model, fingerprint(model), TeacherConfig()).engine == "OpenVINO"


@needs_amx
@pytest.mark.teacher
def test_other_weights_than_the_graphs_are_noticed(model: Path, graph: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["encoder.layer.3.output.dense.weight"] *= 2
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="gives other vectors"):
        BertEncoder(copy, graph, "fp32", 1)


@pytest.mark.teacher
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "roberta"}, "model_type is roberta"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is relu"),
        ("config.json", {"position_embedding_type": "relative_key"}, "is relative_key"),
        ("config.json", {"num_attention_heads": 16}, "no multiples of 32"),
        ("config.json", {"num_hidden_layers": 7}, "not as expected"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pooling is not the mean"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "pooling is not the mean"),
    ],
)
def test_other_models_are_refused(
    model: Path, tmp_path: Path, file: str, change: dict[str, object], message: str
) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    settings = json.loads((copy / file).read_text()) | change
    (copy / file).write_text(json.dumps(settings))
    with pytest.raises(UnsupportedModelError, match=message):
        read_weights(copy, "bf16")
