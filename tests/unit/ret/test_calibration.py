import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cellular.decoders.ret import RET, RETDecoder
from cellular.decoders.ret.calibration import (
    Batch,
    calibrate,
    compensate,
    input_moments,
    loss_of,
    own_texts,
)
from cellular.decoders.ret.quantization import quantise
from cellular.decoders.ret.sparsity import MagnitudePruner, largest, sparsity
from cellular.decoders.ret.weights import Precision, matrices, pack_weights, round_weights, unpack_weights
from cellular.types import FloatArray


@pytest.fixture(scope="module")
def batches(memorised: RETDecoder, mixed_embeddings: FloatArray) -> list[Batch]:
    return own_texts(memorised.model, mixed_embeddings[:24])


@pytest.fixture
def correlated() -> tuple[Tensor, Tensor]:
    """A matrix, and the second moments of inputs that depend on each other."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    return torch.randn(16, 64, generator=generator), (inputs.T @ inputs).double()


def change(weight_RC: Tensor, other_RC: Tensor, moment_CC: Tensor) -> float:
    """Of the outputs, over all inputs."""
    difference_RC = (weight_RC - other_RC).double()
    return float((difference_RC @ moment_CC * difference_RC).sum())


def plainly(model: RET, precision: Precision, share: float) -> RET:
    """Pruned by magnitude and rounded to the nearest."""
    result = copy.deepcopy(model).requires_grad_(False)
    MagnitudePruner(matrices(result), share).step(1.0)
    for weight in matrices(result).values():
        weight.copy_(round_weights(weight, precision))
    return result


def test_own_texts_are_what_the_decoder_writes(
    memorised: RETDecoder, mixed_embeddings: FloatArray, batches: list[Batch]
) -> None:
    texts = [memorised.vocabulary.decode(row.numpy()) for batch in batches for row in batch.pieces_BL]
    rows = torch.cat([batch.embeddings_BE for batch in batches]).numpy()
    assert texts == memorised.decode_batch(rows)
    assert len(texts) == 24


def test_every_matrix_is_seen_with_its_inputs(memorised: RETDecoder, batches: list[Batch]) -> None:
    moments = input_moments(memorised.model, batches)
    for name, weight in matrices(memorised.model).items():
        assert moments[name].shape == (weight.shape[1], weight.shape[1])
        assert torch.equal(moments[name], moments[name].T)
        assert moments[name].diagonal().sum() > 0


def test_rounding_with_compensation_changes_outputs_less(correlated: tuple[Tensor, Tensor]) -> None:
    weight_RC, moment_CC = correlated
    plain = quantise(weight_RC, 4).dequantise()
    assert change(weight_RC, compensate(weight_RC, moment_CC, 4), moment_CC) < 0.7 * change(
        weight_RC, plain, moment_CC
    )


def test_pruning_with_compensation_changes_outputs_less(correlated: tuple[Tensor, Tensor]) -> None:
    weight_RC, moment_CC = correlated
    pruned = compensate(weight_RC, moment_CC, None, 0.5)
    assert int((pruned == 0).sum()) == weight_RC.numel() // 2
    plain = weight_RC * largest(weight_RC, 0.5)
    assert change(weight_RC, pruned, moment_CC) < 0.8 * change(weight_RC, plain, moment_CC)


def test_what_is_rounded_and_pruned_already_stays_as_it_is(correlated: tuple[Tensor, Tensor]) -> None:
    weight_RC, moment_CC = correlated
    done = quantise(weight_RC * largest(weight_RC, 0.5), 4).dequantise()
    assert torch.equal(compensate(done, moment_CC, 4), done)


def test_calibrated_decoders_lose_less_than_others(memorised: RETDecoder, batches: list[Batch]) -> None:
    model = memorised.model
    calibrated, plain = calibrate(model, batches, "int4", 0.5), plainly(model, "int4", 0.5)
    before = loss_of(model, batches)
    assert loss_of(calibrated, batches) - before < 0.8 * (loss_of(plain, batches) - before)


def test_a_calibrated_decoder_is_stored_without_loss(memorised: RETDecoder, batches: list[Batch]) -> None:
    model = calibrate(memorised.model, batches, "int4", 0.5)
    assert sparsity(matrices(model)) >= 0.5 - 1e-4
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    read = unpack_weights(pack_weights(model, "int4"), shapes, "int4")
    assert all(torch.equal(read[name], weight) for name, weight in model.named_parameters())


def test_the_model_given_is_left_alone(
    make_model: Callable[..., RET], make_embeddings: Callable[..., FloatArray]
) -> None:
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    calibrate(model, own_texts(model, make_embeddings(2)), "int8")
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in before.items())
