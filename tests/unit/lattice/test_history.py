"""Earlier turns of a dialogue reach the input face, and nothing else does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.lattice import Lattice3D, LatticeCheckpoint, load_lattice, save_lattice

Make = Callable[..., Lattice3D]


@pytest.fixture
def listener(make_lattice: Make) -> Lattice3D:
    return make_lattice(history=16)


def distance(one: Tensor, other: Tensor) -> float:
    """The least among the rows."""
    return (one - other).detach().norm(dim=1).min().item()


@pytest.fixture
def turns() -> Tensor:
    """(3, 4, 24)"""
    return F.normalize(torch.randn(3, 4, 24, generator=torch.Generator().manual_seed(7)), dim=-1)


def test_earlier_turns_change_the_answer_as_does_their_order(
    listener: Lattice3D, embeddings: Tensor, turns: Tensor
) -> None:
    answers = [listener(embeddings), listener(embeddings, turns), listener(embeddings, turns.flip(1))]
    assert distance(answers[0], answers[1]) > 1e-3
    assert distance(answers[1], answers[2]) > 1e-3
    torch.testing.assert_close(answers[1].norm(dim=1), torch.ones(3))


def test_absent_turns_change_nothing_whatever_stands_in_their_place(
    listener: Lattice3D, embeddings: Tensor, turns: Tensor
) -> None:
    listener = listener.double()
    embeddings, turns = embeddings.double(), turns.double()
    none = torch.zeros(3, 4, dtype=torch.bool)
    torch.testing.assert_close(listener(embeddings, turns, none), listener(embeddings))
    two = none.clone()
    two[:, 2:] = True
    expected = listener(embeddings, turns[:, 2:])
    torch.testing.assert_close(listener(embeddings, turns, two), expected)
    torch.testing.assert_close(listener(embeddings, 100 * turns * ~two[..., None] + turns, two), expected)
    torch.testing.assert_close(listener(embeddings, turns[:, :0]), listener(embeddings))


def test_dialogues_of_different_lengths_share_a_batch(
    listener: Lattice3D, embeddings: Tensor, turns: Tensor
) -> None:
    present = torch.arange(4) >= torch.tensor([[4], [3], [0]])
    together = listener(embeddings, turns, present)
    alone = [listener(embeddings[i : i + 1], turns[i : i + 1, 4 - n :]) for i, n in enumerate((0, 1, 4))]
    torch.testing.assert_close(together, torch.cat(alone))


def test_earlier_turns_enter_the_input_face_alone(
    listener: Lattice3D, embeddings: Tensor, turns: Tensor
) -> None:
    moved = listener.start(embeddings, turns) - listener.start(embeddings)
    assert moved[:, 0].any(-1).all()
    assert not moved[:, 1:].any()


def test_fewer_steps_than_the_far_face_is_away_leave_no_trace_of_earlier_turns(
    make_lattice: Make, embeddings: Tensor, turns: Tensor
) -> None:
    for steps, same in [(4, True), (5, False)]:
        lattice = make_lattice(history=16, steps=steps)
        assert torch.equal(lattice(embeddings, turns), lattice(embeddings)) is same


def test_a_history_is_saved_with_the_lattice(
    tmp_path: Path, listener: Lattice3D, embeddings: Tensor, turns: Tensor
) -> None:
    save_lattice(tmp_path, LatticeCheckpoint(listener, "a-space"))
    torch.testing.assert_close(load_lattice(tmp_path).lattice(embeddings, turns), listener(embeddings, turns))


def test_every_parameter_of_a_history_learns(listener: Lattice3D, embeddings: Tensor, turns: Tensor) -> None:
    listener(embeddings, turns)[:, 0].sum().backward()
    for name, parameter in listener.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_turns_that_do_not_fit_are_refused(
    make_lattice: Make, listener: Lattice3D, embeddings: Tensor, turns: Tensor
) -> None:
    with pytest.raises(ValueError, match="this lattice has no history"):
        make_lattice()(embeddings, turns)
    with pytest.raises(ValueError, match=r"must have shape \(3, N, 24\), not \(3, 24\)"):
        listener(embeddings, turns[:, 0])
    with pytest.raises(ValueError, match=r"must have shape \(3, N, 24\), not \(2, 4, 24\)"):
        listener(embeddings, turns[:2])
    with pytest.raises(ValueError, match=r"floating point, not torch\.int64"):
        listener(embeddings, turns.long())
    for present in (torch.ones(3, 3, dtype=torch.bool), torch.ones(3, 4)):
        with pytest.raises(ValueError, match=r"must be bool \(3, 4\), not"):
            listener(embeddings, turns, present)
    with pytest.raises(ValueError, match="there are none: pass them too"):
        listener(embeddings, None, torch.ones(3, 4, dtype=torch.bool))
