import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from cellular.decoders.ret import RET
from cellular.decoders.ret.checkpoint import Checkpoint, TeacherInfo, load_checkpoint, save_checkpoint
from cellular.decoders.ret.decoder import RETDecoder
from cellular.decoders.ret.generation import TorchEngine
from cellular.decoders.ret.sparsity import MagnitudePruner, sparsity
from cellular.decoders.ret.weights import (
    MATRICES,
    Precision,
    matrices,
    pack_weights,
    round_weights,
    unpack_weights,
)
from cellular.errors import CellularError
from cellular.types import FloatArray

PRECISIONS: list[Precision] = ["fp32", "bf16", "int8", "int4"]
MakeModel = Callable[..., RET]


def shapes(model: RET) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def stored(model: RET, precision: Precision) -> tuple[bytes, dict[str, Tensor]]:
    """The bytes of a file, and the weights read from them."""
    data = save(pack_weights(model, precision))
    return data, unpack_weights(load(data), shapes(model), precision)


@pytest.fixture
def sparse_model(make_model: MakeModel) -> RET:
    model = make_model()
    MagnitudePruner(matrices(model), 0.8).step(1.0)
    return model


def test_matrices_are_all_but_2048_of_the_weights(make_model: MakeModel) -> None:
    model = make_model()
    assert sum(weight.numel() for weight in matrices(model).values()) == model._count_parameters() - 2048


@pytest.mark.parametrize(
    ("precision", "dense", "sparse"),
    [
        ("fp32", 2_900_000, 690_000),
        ("bf16", 1_460_000, 400_000),
        ("int8", 750_000, 260_000),
        ("int4", 450_000, 225_000),
    ],
)
def test_files_are_as_small_as_their_weights(
    precision: Precision, dense: int, sparse: int, make_model: MakeModel, sparse_model: RET
) -> None:
    assert len(stored(make_model(), precision)[0]) <= dense
    assert len(stored(sparse_model, precision)[0]) <= sparse


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_read_is_what_the_precision_leaves(precision: Precision, make_model: MakeModel) -> None:
    model = make_model()
    _, weights = stored(model, precision)
    for name, parameter in model.named_parameters():
        expected = round_weights(parameter.data, precision) if name in MATRICES else parameter.data
        assert torch.equal(weights[name], expected)
        assert weights[name].dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_saving_again_what_was_read_loses_nothing(precision: Precision, sparse_model: RET) -> None:
    _, weights = stored(sparse_model, precision)
    sparse_model.load_state_dict(weights)
    _, again = stored(sparse_model, precision)
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_zeros_stay_zero(precision: Precision, sparse_model: RET) -> None:
    _, weights = stored(sparse_model, precision)
    assert sparsity({name: weights[name] for name in MATRICES}) >= 0.8 - 1e-5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_saved_decoder_writes_the_same_texts(
    precision: Precision,
    share: float,
    memorised: RETDecoder,
    mixed_embeddings: FloatArray,
    tmp_path: Path,
) -> None:
    model, vocabulary = copy.deepcopy(memorised.model).requires_grad_(False), memorised.vocabulary
    MagnitudePruner(matrices(model), share).step(1.0)
    for weight in matrices(model).values():
        weight.copy_(round_weights(weight, precision))
    before = RETDecoder(TorchEngine(model), model, vocabulary).decode_batch(mixed_embeddings[:8])
    teacher = TeacherInfo(name="none", fingerprint="0", dimension=384)
    save_checkpoint(tmp_path, Checkpoint(model, vocabulary, teacher, precision=precision))
    read = load_checkpoint(tmp_path).model
    assert RETDecoder(TorchEngine(read), read, vocabulary).decode_batch(mixed_embeddings[:8]) == before


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pieces.int4", lambda tensor: None, "pieces.int4 is missing"),
        ("pieces.int4", lambda tensor: tensor[:-1], r"pieces.int4 is uint8 \[\d+\], not uint8 \[\d+\]"),
        ("pieces.int4", lambda tensor: tensor.to(torch.int8), "pieces.int4 is int8"),
        ("pieces.mask", lambda tensor: tensor ^ 1, "pieces.int4 is uint8"),
        ("pieces.mask", lambda tensor: tensor[1:], "pieces.mask is uint8"),
        ("pieces.scales", lambda tensor: tensor * float("inf"), "pieces.scales holds NaN or infinity"),
        ("pieces.scales", lambda tensor: tensor[:, 1:], "has 7 groups, which do not divide 256 columns"),
        ("output_bias", lambda tensor: tensor.double(), "output_bias is float64"),
        ("stranger", lambda tensor: torch.zeros(1), "stranger belongs to no weight"),
    ],
)
def test_a_damaged_tensor_is_named_in_one_line(
    name: str, change: Callable[[Tensor | None], Tensor | None], message: str, sparse_model: RET
) -> None:
    tensors = pack_weights(sparse_model, "int4")
    changed = change(tensors.pop(name, None))
    if changed is not None:
        tensors[name] = changed
    with pytest.raises(CellularError, match=message) as caught:
        unpack_weights(tensors, shapes(sparse_model), "int4")
    assert "\n" not in str(caught.value)


def test_weights_of_another_precision_are_refused(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(CellularError, match=r"pieces\.int4 is missing"):
        unpack_weights(pack_weights(model, "fp32"), shapes(model), "int4")
