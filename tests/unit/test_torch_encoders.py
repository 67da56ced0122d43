"""The torch path gives sentence-transformers' vectors, whichever way it takes to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from cellular import torch_encoders
from cellular.batches import Tokens, padded
from cellular.config import TeacherConfig
from cellular.torch_encoders import TorchEncoder
from cellular.types import FloatArray

SENTENCE = "a boy and two dogs run on the beach of a town where no law was ever repealed"
WORDS = SENTENCE.split()
TEXTS = [" ".join(WORDS[: 1 + (7 * number) % len(WORDS)]) for number in range(70)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer of random weights, as Hugging Face would store it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*WORDS, "that", "model"})]
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=50).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=50,
    )
    BertModel(shape).save_pretrained(folder)
    return folder


@pytest.fixture
def load(folder: Path) -> Callable[..., SentenceTransformer]:
    def load(pooling: str = "mean", **options: Any) -> SentenceTransformer:
        transformer = Transformer(str(folder), max_seq_length=50)
        return SentenceTransformer(
            modules=[transformer, Pooling(32, pooling), Normalize()], device="cpu", **options
        )

    return load


def expected(model: SentenceTransformer) -> FloatArray:
    vectors: FloatArray = model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    return vectors


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_windows_and_batches_give_the_vectors_of_encode(
    load: Callable[..., SentenceTransformer], pooling: str, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_encoders, "_WINDOW", 32)
    monkeypatch.setattr(torch_encoders, "_CPU_MULTIPLE", multiple)
    vectors = expected(load(pooling))
    encoder = TorchEncoder(load(pooling), TeacherConfig(batch_tokens=100))
    assert encoder.path == "windows"
    np.testing.assert_allclose(encoder.encode(TEXTS), vectors, atol=1e-6)


def test_bf16_holds_the_linear_weights_and_stays_close(load: Callable[..., SentenceTransformer]) -> None:
    model = load()
    vectors = expected(model)
    encoder = TorchEncoder(model, TeacherConfig(precision="bf16"))
    types = {type(part).__name__: part.weight.dtype for part in model.modules() if hasattr(part, "weight")}
    assert types["Linear"] == torch.bfloat16
    assert types["LayerNorm"] == types["Embedding"] == torch.float32
    assert (encoder.encode(TEXTS) * vectors).sum(axis=1).min() >= 0.9999


def test_a_model_with_a_prompt_is_run_by_its_own_encode(load: Callable[..., SentenceTransformer]) -> None:
    model = load(prompts={"query": "two dogs "}, default_prompt_name="query")
    encoder = TorchEncoder(model, TeacherConfig())
    assert encoder.path == "encode"
    np.testing.assert_allclose(encoder.encode(TEXTS), expected(model), atol=1e-6)


def test_a_model_that_wants_a_flat_mask_gets_one(
    load: Callable[..., SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    forward = model[0].forward

    def flat_only(features: dict[str, Any], **options: Any) -> dict[str, Any]:
        if features["attention_mask"].dim() != 2:
            raise ValueError("wrong shape for attention_mask")
        return forward(features, **options)

    monkeypatch.setattr(model[0], "forward", flat_only)
    encoder = TorchEncoder(model, TeacherConfig())
    assert encoder.path == "windows"
    np.testing.assert_allclose(encoder.encode(TEXTS), expected(model), atol=1e-6)


def test_a_tensor_can_be_trained_on(load: Callable[..., SentenceTransformer]) -> None:
    encoder = TorchEncoder(load(), TeacherConfig())
    vectors = encoder.encode_tensor(TEXTS)
    weights = torch.ones(32, requires_grad=True)
    (vectors * weights).sum().backward()
    assert weights.grad is not None
    assert encoder.encode_tensor([]).shape == (0, 32)


def test_padding_is_zero_and_masked() -> None:
    tokens = Tokens(np.array([5, 6, 7, 8], np.int32), np.array([0, 1]), np.array([1, 3]))
    batch = padded(tokens, np.array([1, 0]))
    assert batch["input_ids"].tolist() == [[6, 7, 8], [5, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.teacher
def test_bf16_of_the_default_teacher_is_close() -> None:
    from cellular.graphs import load_sentence_transformer
    from cellular.teachers import find_model

    model = load_sentence_transformer(find_model("all-MiniLM-L6-v2"), "cpu")
    vectors = expected(model)
    encoder = TorchEncoder(model, TeacherConfig(precision="bf16"))
    assert encoder.path == "windows"
    assert (encoder.encode(TEXTS) * vectors).sum(axis=1).min() >= 0.9999
