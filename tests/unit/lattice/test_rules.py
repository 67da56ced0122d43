"""What every cell rule keeps to: a new line in RULES is tested by what is here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cellular.lattice import RULES, Lattice3D, LatticeCheckpoint, LatticeConfig, load_lattice, save_lattice
from cellular.lattice.rules.gated import _Blend, blend

rules = pytest.mark.parametrize("rule", RULES)


@rules
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("neighbours", [6, 26])
def test_a_step_keeps_shape_and_dtype(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str, neighbours: int, padding: str
) -> None:
    lattice = make_lattice(rule=rule, neighbours=neighbours, padding=padding)
    for dtype in (torch.float32, torch.bfloat16):
        state_BXYZC = lattice.to(dtype).start(embeddings)
        after_BXYZC = lattice.step(state_BXYZC)
        assert state_BXYZC.shape == after_BXYZC.shape == (3, 6, 4, 4, 16)
        assert state_BXYZC.dtype == after_BXYZC.dtype == dtype


@rules
def test_the_answer_has_unit_length_and_is_the_same_each_time(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str
) -> None:
    lattice = make_lattice(rule=rule)
    with torch.inference_mode():
        first, second = lattice(embeddings), lattice(embeddings)
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))


@rules
def test_a_batch_answers_as_one_by_one(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str
) -> None:
    lattice = make_lattice(rule=rule)
    alone = torch.cat([lattice(row[None]) for row in embeddings])
    torch.testing.assert_close(lattice(embeddings), alone)


@rules
def test_gradients_reach_every_parameter(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str
) -> None:
    lattice = make_lattice(rule=rule, steps=7).train()
    lattice(embeddings)[:, 0].sum().backward()
    for name, parameter in lattice.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@rules
def test_cells_at_rest_stay_so(make_lattice: Callable[..., Lattice3D], rule: str) -> None:
    assert not make_lattice(rule=rule).step(torch.zeros(1, 6, 4, 4, 16)).any()


@rules
def test_autocast_computes_in_bfloat16_and_stays_close(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str
) -> None:
    lattice = make_lattice(rule=rule)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = lattice(embeddings)
        assert lattice.step(torch.zeros(1, 6, 4, 4, 16)).dtype == torch.float32  # what adds up stays precise
    with torch.inference_mode():
        assert float((found * lattice(embeddings)).sum(1).min()) > 0.999


@rules
def test_a_saved_lattice_answers_the_same(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str, tmp_path: Path
) -> None:
    lattice = make_lattice(rule=rule)
    save_lattice(tmp_path, LatticeCheckpoint(lattice, "a-space", {"seed": 1}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_lattice(tmp_path)
    assert (loaded.teacher, loaded.training) == ("a-space", {"seed": 1})
    assert loaded.lattice.config == lattice.config
    assert torch.equal(loaded.lattice(embeddings), lattice(embeddings))


@rules
@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.zeros(2, 25), r"shape \(B, 24\), not \(2, 25\)"),
        (torch.zeros(24), r"not \(24,\)"),
        (torch.zeros(2, 24, dtype=torch.int64), "floating point, not torch.int64"),
    ],
)
def test_other_input_is_refused(
    make_lattice: Callable[..., Lattice3D], rule: str, embeddings: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_lattice(rule=rule)(embeddings)


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no rule life: take one of nca, gated, mlp"):
        LatticeConfig(rule="life")


def test_nca_draws_in_training_which_cells_skip(
    make_lattice: Callable[..., Lattice3D],
) -> None:
    lattice = make_lattice(rule="nca", size=(8, 8, 8), update_probability=0.75).train()
    state_BXYZC = torch.randn(8, 8, 8, 8, 16, generator=torch.Generator().manual_seed(3))
    first, second = lattice.step(state_BXYZC), lattice.step(state_BXYZC)
    assert not torch.equal(first, second)
    stepped = (first != state_BXYZC).any(-1)
    assert float(stepped.float().mean()) == pytest.approx(0.75, abs=0.03)
    full = lattice.eval().step(state_BXYZC)
    torch.testing.assert_close((first - state_BXYZC)[stepped], ((full - state_BXYZC) / 0.75)[stepped])


def test_always_updating_is_the_same_in_training(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice = make_lattice(rule="nca", update_probability=1.0)
    assert torch.equal(lattice(embeddings), lattice.train()(embeddings))


def test_gates_blend_on_a_processor_as_they_are_written() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = (2, 3, 2, 2, 12), (2, 3, 2, 2, 4), (2, 3, 2, 2, 4)
    parts = [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]
    torch.testing.assert_close(_Blend.apply(*parts), blend(*parts))
    assert torch.autograd.gradcheck(_Blend.apply, parts)
    halves = [part.detach().bfloat16() for part in parts]
    torch.testing.assert_close(_Blend.apply(*halves), blend(*halves), rtol=0.02, atol=0.02)
