"""A 3D lattice of cells between two embeddings.

An embedding enters the face x = 0 and nowhere else; cells work on it by a local rule; the opposite face is
read. A step carries information one cell further, and a sweep of Mamba across the whole lattice. All other
states begin at zero, where the rules leave them until a wave of neighbours arrives.

Shapes: B embeddings, E embedding dimension, N turns before each, X, Y, Z cells along the axes, C channels,
F numbers of a face outside the lattice, L = X Y Z cells along a path.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.lattice.config import LatticeConfig
from cellular.lattice.history import History, check_turns
from cellular.lattice.norm import CellNorm
from cellular.lattice.rules import RULES
from cellular.lattice.sweeps import Sweep


class Lattice3D(nn.Module):
    """Embeddings to embeddings of unit length.

    Evaluation is deterministic; in training the rule `nca` draws which cells skip a step, and dropout which
    numbers of the faces. Runs in the dtype of its weights, or under autocast.
    """

    def __init__(self, config: LatticeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LatticeConfig()
        self.project_in = ProjectIn(config)
        self.history = History(config, config.history) if config.history else None
        self.norm = CellNorm(config) if config.rule else None
        self.rule = RULES[config.rule](config) if config.rule else None
        self.sweeps = nn.ModuleList(Sweep(config, order) for order in _used_orders(config))
        self.project_out = ProjectOut(config)

    def forward(
        self, embeddings_BE: Tensor, earlier_BNE: Tensor | None = None, present_BN: Tensor | None = None
    ) -> Tensor:
        """What the lattice makes of embeddings.

        Args:
            embeddings_BE: (B, E) floating, unit length.
            earlier_BNE: (B, N, E) the turns of a dialogue before each, oldest first; only with
                `config.history`. None: there were none.
            present_BN: (B, N) bool, which of them there are, as where dialogues are of different lengths:
                the others, which come first, change nothing. None: all.

        Returns:
            (B, E) float32, unit length.

        Raises:
            ValueError: another shape, integers, or turns for a lattice without history.
        """
        state_BXYZC = self.start(embeddings_BE, earlier_BNE, present_BN)
        for number in range(self.config.steps):  # outside the light cones of both faces nothing is computed
            state_BXYZC = self.advance(state_BXYZC[:, -self._read(number) :], number)
        result_BE: Tensor = self.project_out(state_BXYZC)
        return result_BE

    def start(
        self, embeddings_BE: Tensor, earlier_BNE: Tensor | None = None, present_BN: Tensor | None = None
    ) -> Tensor:
        """(B, X, Y, Z, C) states before the first step: the embeddings on the input face, zero elsewhere."""
        dimension = self.config.embedding_dimension
        if embeddings_BE.ndim != 2 or embeddings_BE.shape[1] != dimension:
            raise ValueError(f"embeddings must have shape (B, {dimension}), not {tuple(embeddings_BE.shape)}")
        if not embeddings_BE.is_floating_point():
            raise ValueError(f"embeddings must be floating point, not {embeddings_BE.dtype}")
        told_BF = self._recall(embeddings_BE, earlier_BNE, present_BN)
        face_BYZC = self.project_in(embeddings_BE, told_BF)
        beyond = (0, 0, 0, 0, 0, 0, 0, self.config.size[0] - 1)
        return F.pad(face_BYZC[:, None], beyond)

    def _recall(
        self, embeddings_BE: Tensor, earlier_BNE: Tensor | None, present_BN: Tensor | None
    ) -> Tensor | None:
        """What the turns before add to the input face."""
        if earlier_BNE is None:
            if present_BN is not None:
                raise ValueError("it says which earlier turns are present, but there are none: pass them too")
        elif self.history is None:
            raise ValueError("this lattice has no history: it takes single embeddings only")
        else:
            check_turns(embeddings_BE, earlier_BNE, present_BN)
        if self.history is None:
            return None
        told_BF: Tensor = self.history(embeddings_BE, earlier_BNE, present_BN)
        return told_BF

    def advance(self, state_BXYZC: Tensor, number: int) -> Tensor:
        """States after step `number`, counted from 0, and after the sweep that may follow it.

        Planes far from the output face may be missing; the answer is then wrong next to them, and only there.
        """
        state_BXYZC = self.step(state_BXYZC, self._reached(number))
        if (sweep := self._sweep_after(number)) is not None:
            state_BXYZC = self.sweeps[sweep](state_BXYZC)
        return state_BXYZC

    def step(self, state_BXYZC: Tensor, reached: int | None = None) -> Tensor:
        """States after the rule: each depends on itself and on its neighbours.

        Args:
            state_BXYZC: (B, X, Y, Z, C), or the last planes along x alone.
            reached: how many planes from the input face on the step can change: the others are at rest and
                stay so. None: all.
        """
        if self.rule is None or self.norm is None:
            return state_BXYZC
        planes = state_BXYZC.shape[1]
        missing = self.config.size[0] - planes
        moving = planes if reached is None else min(planes, max(1, reached - missing))
        state_BXYZC = state_BXYZC[:, :moving]
        next_BXYZC: Tensor = self.rule(state_BXYZC, self.norm(state_BXYZC, missing))
        if moving == planes:
            return next_BXYZC
        return F.pad(next_BXYZC, (0, 0, 0, 0, 0, 0, 0, planes - moving))

    def _sweep_after(self, number: int) -> int | None:
        """Which sweep follows a step, if one does."""
        done, every = number + 1, self.config.sweep_every
        if not self.sweeps or done % every or done == self.config.steps:
            return None
        return (done // every - 1) % len(self.sweeps)

    def _reached(self, number: int) -> int:
        """Planes from the input face on that can be other than zero after a step: one more each, then all."""
        swept = any(self._sweep_after(earlier) is not None for earlier in range(number))
        return self.config.size[0] if swept else number + 2

    def _read(self, number: int) -> int:
        """Planes up to the output face that it can depend on before a step: all, in the end one less each."""
        planes, steps = self.config.size[0], self.config.steps
        swept = any(self._sweep_after(later) is not None for later in range(number, steps))
        return planes if swept else min(planes, steps - number + 1)


class ProjectIn(nn.Module):
    """An embedding to the states of the input face: a few numbers a cell, then a map that all cells share."""

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__()
        _, *self.face = config.size
        cells, inputs = self.face[0] * self.face[1], config.embedding_dimension
        self.scale, self.dropout = inputs**0.5, config.dropout
        self.spread = nn.Linear(inputs, cells * config.face_channels, bias=False)
        self.widen = nn.Linear(config.face_channels, config.channels, bias=False)
        for layer in (self.spread, self.widen):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")

    def forward(self, embeddings_BE: Tensor, told_BF: Tensor | None = None) -> Tensor:
        """(B, Y, Z, C) of (B, E), and of what is added to the numbers of the face."""
        scaled = embeddings_BE.to(self.spread.weight.dtype) * self.scale
        face_BF: Tensor = self.spread(scaled)
        if told_BF is not None:
            face_BF = face_BF + told_BF
        face_BF = F.dropout(face_BF, self.dropout, self.training)
        face_BYZC: Tensor = self.widen(face_BF.view(len(scaled), *self.face, -1))
        return face_BYZC


class ProjectOut(nn.Module):
    """The states of the output face to an embedding: the way in, backwards."""

    def __init__(self, config: LatticeConfig) -> None:
        super().__init__()
        _, *face = config.size
        self.channels, self.dropout = config.channels, config.dropout
        self.narrow = nn.Linear(config.channels, config.face_channels, bias=False)
        self.gather = nn.Linear(face[0] * face[1] * config.face_channels, config.embedding_dimension)

    def forward(self, state_BXYZC: Tensor) -> Tensor:
        """(B, E) float32 of unit length; of the states only those at x = X - 1 are read."""
        face_BYZC = F.layer_norm(state_BXYZC[:, -1], (self.channels,))
        face_BF = F.dropout(self.narrow(face_BYZC).flatten(1), self.dropout, self.training)
        return F.normalize(self.gather(face_BF).float(), dim=-1)


def count_parameters(lattice: Lattice3D) -> dict[str, int]:
    """Numbers of parameters of each part, then of all."""
    parts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in lattice.named_children()
    }
    return {**parts, "all": sum(parts.values())}


def describe_parameters(lattice: Lattice3D) -> str:
    """A line a part, for people."""
    return "\n".join(f"{name:<12}{count:>12,}" for name, count in count_parameters(lattice).items())


@torch.inference_mode()
def record_states(lattice: Lattice3D, embeddings_BE: Tensor) -> Tensor:
    """What the cells were before the first step and after each, sweeps included, for pictures.

    Returns:
        (T + 1, B, X, Y, Z, C) float32 in main memory.
    """
    state_BXYZC = lattice.start(embeddings_BE.to(lattice.project_in.spread.weight.device))
    states = [state_BXYZC]
    for number in range(lattice.config.steps):
        states.append(state_BXYZC := lattice.advance(state_BXYZC, number))
    return torch.stack([state_BXYZC.float().cpu() for state_BXYZC in states])


def _used_orders(config: LatticeConfig) -> tuple[str, ...]:
    """Those whose turn comes before the last step."""
    return config.sweeps[: (config.steps - 1) // config.sweep_every]
