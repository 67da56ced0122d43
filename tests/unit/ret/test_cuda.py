"""The decoding kernel writes what the model would; off the GPU, Triton's interpreter runs it if told to."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.decoders.ret.cuda import CudaEngine, greedy_pieces, sample_pieces
from cellular.decoders.ret.generation import greedy
from cellular.decoders.ret.model import RET, RETConfig
from cellular.errors import CellularError
from tests.unit.ret.conftest import DEVICE, runs_kernels


@pytest.fixture
def model() -> RET:
    """Untrained, with gains and biases off their first values, so that its texts vary and some end early."""
    torch.manual_seed(0)
    model = RET(RETConfig(applications=2))
    with torch.no_grad():
        for name in ("attention_norm", "mlp_norm", "input_norm", "prefix_gain"):
            getattr(model, name).add_(0.3 * torch.randn(256))
        model.output_norm.copy_(torch.randn(256))
        model.step_gain.normal_()
        model.pieces.mul_(12)
        model.attention_out.mul_(4)
        model.mlp_out.mul_(4)
    return model.to(DEVICE)


@pytest.fixture
def embeddings() -> Tensor:
    torch.manual_seed(1)
    return F.normalize(torch.randn(19, 384), dim=1).to(DEVICE)


@runs_kernels
def test_each_piece_is_the_likeliest_after_those_before_it(model: RET, embeddings: Tensor) -> None:
    model.output_bias.data[0] = 1.0
    ids_BL = greedy_pieces(model, embeddings, 8).long()
    with torch.no_grad():
        logits_BLV = model(embeddings, ids_BL[:, :-1])
    written_BL = F.pad((ids_BL[:, :-1] != 0).cumprod(1), (1, 0), value=1).bool()
    loss_BL = logits_BLV.amax(-1) - logits_BLV.gather(2, ids_BL[..., None])[..., 0]
    assert loss_BL[written_BL].max() < (1e-4 if DEVICE == "cpu" else 0.1)
    assert not ids_BL[~written_BL].any()
    assert ids_BL.unique().numel() > 3


@runs_kernels
def test_a_text_does_not_depend_on_its_batch(model: RET, embeddings: Tensor) -> None:
    together = greedy_pieces(model, embeddings, 4)
    assert torch.equal(greedy_pieces(model, embeddings[17:], 4), together[17:])


@runs_kernels
def test_samples_are_as_frequent_as_they_are_likely(model: RET, embeddings: Tensor) -> None:
    count = 512
    generator = torch.Generator().manual_seed(2)
    same_BE = embeddings[:1].expand(count, -1).contiguous()
    ids_BL = sample_pieces(model, same_BE, 1, 0.7, generator)
    with torch.no_grad():
        logits_V = model(embeddings[:1], torch.zeros(1, 0, dtype=torch.int64, device=DEVICE))[0, 0]
    probability_V = (logits_V / 0.7).softmax(0)
    frequency_V = ids_BL[:, 0].long().bincount(minlength=256) / count
    error_V = (probability_V * (1 - probability_V) / count).sqrt()
    assert ((frequency_V - probability_V).abs() < 5 * error_V + 2 / count).all()
    assert not torch.equal(sample_pieces(model, same_BE, 1, 0.7, generator), ids_BL)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_the_engine_writes_what_its_single_steps_write(model: RET, embeddings: Tensor) -> None:
    engine = CudaEngine(model)
    rows = embeddings.cpu().numpy()
    same = []  # of the pieces that follow the same pieces: bf16 may decide a near tie the other way
    for one, other in zip(engine.greedy(rows, 4), greedy(engine, rows, 4), strict=True):
        equal = [bool(a == b) for a, b in zip(one, other, strict=False)]
        same += equal[: equal.index(False) + 1] if False in equal else equal
    assert len(same) > 3 * len(rows)  # later pieces are compared too: they read what the steps before kept
    assert np.mean(same) > 0.8


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_without_a_gpu_the_engine_says_so(model: RET) -> None:
    with pytest.raises(CellularError, match="needs an NVIDIA GPU"):
        CudaEngine(model)
