"""How far information travels, and how large the lattice is."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.lattice import (
    ORDERS,
    RULES,
    Lattice3D,
    LatticeConfig,
    count_parameters,
    describe_parameters,
    record_states,
)
from cellular.lattice.perceive import Neighbours

rules = pytest.mark.parametrize("rule", RULES)


@rules
@pytest.mark.parametrize("steps", [1, 4])
def test_fewer_steps_than_the_far_face_is_away_leave_no_trace_of_the_input(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str, steps: int
) -> None:
    answers = make_lattice(rule=rule, steps=steps)(embeddings)
    assert torch.equal(answers, answers[:1].expand_as(answers))
    torch.testing.assert_close(answers.norm(dim=1), torch.ones(3))


@rules
def test_the_input_arrives_at_the_step_that_crosses_the_lattice(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str
) -> None:
    with torch.inference_mode():
        answers = make_lattice(rule=rule, steps=5)(embeddings)
    cosines = answers @ answers.t()
    assert float(cosines.fill_diagonal_(0).max()) < 0.95


@rules
@pytest.mark.parametrize(("neighbours", "norm"), [(6, 1), (26, float("inf"))])
def test_a_perturbation_travels_one_neighbour_a_step_exactly(
    make_lattice: Callable[..., Lattice3D], rule: str, neighbours: Neighbours, norm: float
) -> None:
    lattice = make_lattice(rule=rule, neighbours=neighbours, size=(7, 7, 7)).double()
    state_BXYZC = torch.randn(1, 7, 7, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    changed_BXYZC = state_BXYZC.clone()
    changed_BXYZC[0, 2, 3, 4, 5] += 1
    axes = [torch.arange(7.0) - at for at in (2, 3, 4)]
    distance_XYZ = torch.linalg.vector_norm(
        torch.stack(torch.meshgrid(*axes, indexing="ij")), ord=norm, dim=0
    )
    for steps in range(1, 5):
        state_BXYZC, changed_BXYZC = lattice.step(state_BXYZC), lattice.step(changed_BXYZC)
        reached_XYZ = (state_BXYZC != changed_BXYZC).any(-1)[0]
        assert torch.equal(reached_XYZ, distance_XYZ <= steps)


@rules
def test_the_wave_leaves_cells_before_it_at_zero(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str
) -> None:
    states = record_states(make_lattice(rule=rule), embeddings)
    assert states.shape == (6, 3, 6, 4, 4, 16) and states.dtype == torch.float32
    for step, state_BXYZC in enumerate(states):
        reached_X = state_BXYZC.abs().amax((0, 2, 3, 4)) > 0
        assert reached_X.tolist() == [x <= step for x in range(6)]


@rules
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 3},
        {"steps": 12},
        {"neighbours": 26, "padding": "replicate"},
        {"sweeps": ("raster", "hilbert"), "steps": 9, "sweep_every": 2},
        {"sweeps": ("raster",), "steps": 8, "sweep_every": 4, "padding": "replicate"},
        {"size": (1, 4, 4), "sweeps": ("columns",)},
    ],
)
def test_what_is_left_out_changes_neither_the_answer_nor_a_gradient(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, rule: str, settings: dict[str, Any]
) -> None:
    """A pass is as one in which each cell takes each step."""
    lattice = make_lattice(rule=rule, **settings).double()
    embeddings = embeddings.double()
    torch.nn.init.uniform_(lattice.norm.gain_XYZC, 0.5, 1.5, generator=torch.Generator().manual_seed(7))
    config = lattice.config
    state_BXYZC = lattice.start(embeddings)
    for done in range(1, config.steps + 1):
        state_BXYZC = lattice.step(state_BXYZC)
        if lattice.sweeps and done % config.sweep_every == 0 and done < config.steps:
            state_BXYZC = lattice.sweeps[(done // config.sweep_every - 1) % len(lattice.sweeps)](state_BXYZC)
    whole, answers = lattice.project_out(state_BXYZC), lattice(embeddings)
    torch.testing.assert_close(answers, whole)
    parameters = tuple(lattice.parameters())
    expected, found = (torch.autograd.grad((x[:, 0] ** 3).sum(), parameters) for x in (whole, answers))
    torch.testing.assert_close(found, expected)


def test_the_embedding_enters_the_input_face_alone(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    state_BXYZC = make_lattice().start(embeddings)
    assert state_BXYZC[:, 0].any(-1).all()
    assert not state_BXYZC[:, 1:].any()


def test_the_output_face_alone_is_read(make_lattice: Callable[..., Lattice3D]) -> None:
    state_BXYZC = torch.randn(1, 6, 4, 4, 16, generator=torch.Generator().manual_seed(5)).requires_grad_()
    make_lattice().project_out(state_BXYZC)[0, 0].backward()
    assert state_BXYZC.grad is not None
    assert not state_BXYZC.grad[:, :-1].any()
    assert state_BXYZC.grad[:, -1].any(-1).all()


@pytest.mark.parametrize("order", ORDERS)
def test_mamba_reaches_the_far_face_in_two_steps(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor, order: str
) -> None:
    settings = {"steps": 2, "sweep_every": 1}
    answers = make_lattice(sweeps=(order,), **settings)(embeddings)
    assert not torch.isclose(answers[0], answers[1]).all()
    without = make_lattice(**settings)(embeddings)
    assert torch.equal(without[0], without[1])


@pytest.mark.parametrize("order", ORDERS)
def test_a_sweep_goes_both_ways_and_puts_every_cell_back(
    make_lattice: Callable[..., Lattice3D], order: str
) -> None:
    sweep = make_lattice(sweeps=(order,)).sweeps[0].double()
    state_BXYZC = torch.randn(1, 6, 4, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    middle = ORDERS[order]((6, 4, 4))[48]
    changed_BXYZC = state_BXYZC.clone()
    changed_BXYZC.view(96, 16)[middle, 0] += 1
    moved = (sweep(changed_BXYZC) - sweep(state_BXYZC)).abs().amax(-1).flatten()
    assert (moved > 0).all()
    for silent in (sweep.ahead, sweep.back):
        for parameter in silent.parameters():
            parameter.data.zero_()
    assert torch.equal(sweep(state_BXYZC), state_BXYZC)


def test_orders_take_turns_between_steps(make_lattice: Callable[..., Lattice3D]) -> None:
    counts = {
        (steps, every): len(make_lattice(sweeps=("raster", "hilbert"), steps=steps, sweep_every=every).sweeps)
        for steps, every in product((1, 2, 3, 8), (1, 2))
    }
    assert counts == {
        (1, 1): 0, (1, 2): 0, (2, 1): 1, (2, 2): 0, (3, 1): 2, (3, 2): 1, (8, 1): 2, (8, 2): 2,
    }  # fmt: skip


def test_gradients_reach_mamba(make_lattice: Callable[..., Lattice3D], embeddings: Tensor) -> None:
    lattice = make_lattice(sweeps=tuple(ORDERS), steps=5, sweep_every=1)
    lattice(embeddings)[:, 0].sum().backward()
    for name, parameter in lattice.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("dimension", [384, 768])
def test_the_default_has_between_one_and_two_million_parameters(dimension: int) -> None:
    lattice = Lattice3D(LatticeConfig(embedding_dimension=dimension, face_channels=16 * 384 // dimension))
    counts = count_parameters(lattice)
    assert 1_000_000 <= counts["all"] <= 2_000_000
    assert counts["all"] == sum(parameter.numel() for parameter in lattice.parameters())
    assert f"{counts['all']:,}" in describe_parameters(lattice)


def test_answers_of_the_default_differ_as_their_inputs_do() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lattice = Lattice3D().eval()
    inputs = F.normalize(torch.randn(4, 384, generator=torch.Generator().manual_seed(1)))
    with torch.inference_mode():
        answers = lattice(inputs)
    cosines = answers @ answers.t()
    assert float(cosines.fill_diagonal_(0).abs().max()) < 0.95


def test_dropout_is_of_the_faces_and_of_training_alone(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice = make_lattice(dropout=0.5, update_probability=1.0)
    assert torch.equal(lattice(embeddings), make_lattice(update_probability=1.0)(embeddings))
    lattice.train()
    assert not torch.equal(lattice(embeddings), lattice(embeddings))


def test_without_rule_and_mamba_nothing_moves(
    make_lattice: Callable[..., Lattice3D], embeddings: Tensor
) -> None:
    lattice = make_lattice(rule=None)
    assert torch.equal(lattice.step(lattice.start(embeddings)), lattice.start(embeddings))


def test_unknown_orders_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no order peano: take some of raster, columns, hilbert"):
        LatticeConfig(sweeps=("peano",))


def test_channels_that_mamba_cannot_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16 for Mamba's heads, not 40"):
        LatticeConfig(channels=40)
    assert LatticeConfig(channels=40, sweeps=()).channels == 40
