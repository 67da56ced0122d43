"""How kernels are cut and started, and what an application of the layer keeps for its backward pass.

Shapes as in `model`; N = B x T rows, C = 3 D.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from cellular.decoders.ret.model import HEADS, HIDDEN, INNER

KEY = HIDDEN // HEADS
HALF = KEY // 2


@dataclass(frozen=True)
class Tiling:
    """Rows of a tile, columns of a chunk of the sum, warps and pipeline stages of a program."""

    block: int
    chunk: int = 64
    warps: int = 8
    stages: int = 3

    @property
    def options(self) -> dict[str, int]:
        """What Triton is told at a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages}


@dataclass(frozen=True)
class Weights:
    """The layer's matrices in the precision that is computed in, the gains of norms multiplied in."""

    query_key_value: Tensor
    attention_out: Tensor
    mlp_in: Tensor
    mlp_out: Tensor


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines, float32 (T, K / 2) each."""

    cosine: Tensor
    sine: Tensor


@dataclass(frozen=True)
class Saved:
    """What the backward pass reads; with a leading axis of applications, or of one application.

    A scale is one over the root mean square of a row: of the layer's input, of each of its queries and keys,
    and of the MLP's input.
    """

    x_ND: Tensor
    scale_N: Tensor
    qkv_NC: Tensor
    head_scale_N4: Tensor
    y_ND: Tensor
    x1_ND: Tensor
    scale1_N: Tensor
    squared_NF: Tensor

    @staticmethod
    def empty(applications: int, like_ND: Tensor) -> "Saved":
        """Room for a pass; the input has room for the result too, as one more application."""
        rows, dtype = len(like_ND), like_ND.dtype

        def room(count: int, *shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return like_ND.new_empty((count, rows, *shape), dtype=dtype)

        return Saved(
            room(applications + 1, HIDDEN),
            room(applications + 1, dtype=torch.float32),
            room(applications, 3 * HIDDEN),
            room(applications, 2 * HEADS, dtype=torch.float32),
            room(applications, HIDDEN),
            room(applications, HIDDEN),
            room(applications, dtype=torch.float32),
            room(applications, INNER),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """All, in order."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def of(self, application: int) -> "Saved":
        """One application's."""
        return Saved(*(tensor[application] for tensor in self.tensors()))


def tiles(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A matrix that kernels move in tiles of that size."""
    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def group_rows(positions: int, block: int) -> int:
    """Rows of the whole sequences that fit into a block."""
    return block // positions * positions
