"""Where rows lie, how programs are cut, and what an application of the layer keeps for its backward pass.

Shapes as in `model`; C = 3 D. N rows are the positions of all texts, one after the other, and some more of
zeros, so that they are whole tiles: no program but attention's, which masks, reads or writes beyond them.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
from triton.tools.tensor_descriptor import TensorDescriptor

from cellular.decoders.ret.model import HEADS, HIDDEN, INNER

KEY = HIDDEN // HEADS
HALF = KEY // 2
ALIGNMENT = 128  # the rows of the largest tile


@dataclass(frozen=True)
class Layout:
    """The T positions of B texts as rows, and which of them a program of attention holds."""

    batch: int
    positions: int

    @property
    def rows(self) -> int:
        """N."""
        return ALIGNMENT * -(-self.batch * self.positions // ALIGNMENT)

    @property
    def block(self) -> int:
        """Rows of a program of attention, idle ones included; of 128 a row takes half as long again."""
        return 64 if self.positions <= 64 else 128

    @property
    def group(self) -> int:
        """Rows of the whole sequences in a block."""
        return self.block // self.positions * self.positions

    @property
    def groups(self) -> int:
        """Programs of attention for each head."""
        return -(-self.rows // self.group)

    @property
    def attention(self) -> dict[str, int]:
        """What the kernels of attention are made for, both ways: a warpgroup has 64 rows."""
        return {"D": HIDDEN, "HALF": HALF, "BLOCK": self.block, "num_warps": self.block // 16}

    def states(self, x_ND: Tensor) -> Tensor:
        """(B, T, D) view."""
        return x_ND[: self.batch * self.positions].view(self.batch, self.positions, HIDDEN)

    def place(self, x_BTD: Tensor) -> Tensor:
        """(N, D), zeros where there are more rows than positions."""
        used = self.batch * self.positions
        if used == self.rows:
            return x_BTD.reshape(used, HIDDEN)
        x_ND = x_BTD.new_empty(self.rows, HIDDEN)
        x_ND[:used] = x_BTD.reshape(used, HIDDEN)
        x_ND[used:] = 0
        return x_ND


@dataclass(frozen=True)
class Weights:
    """The layer's matrices in the precision that is computed in, the gains of norms multiplied in."""

    query_key_value: Tensor
    attention_out: Tensor
    mlp_in: Tensor
    mlp_out: Tensor


@dataclass(frozen=True)
class Inputs:
    """What the inputs of the first application are made of: see `RET.inputs`.

    (B, P, D) prefix states, (B, L) pieces, the (V, D) table of pieces, the (D,) gains of the mean prefix
    state and of the norm.
    """

    prefix: Tensor
    pieces: Tensor
    table: Tensor
    prefix_gain: Tensor
    norm: Tensor

    @property
    def prefix_states(self) -> int:
        """P."""
        return self.prefix.shape[1]

    def tensors(self) -> tuple[Tensor, ...]:
        """All, in order."""
        return self.prefix, self.pieces, self.table, self.prefix_gain, self.norm


@dataclass(frozen=True)
class Saved:
    """What the backward pass reads; with a leading axis of applications, or of one application.

    A scale is one over the root mean square of a row: of the layer's input, and of the MLP's. Values are
    products with the input before its norm, as they come.
    """

    x_ND: Tensor
    scale_N: Tensor
    qkv_NC: Tensor
    y_ND: Tensor
    x1_ND: Tensor
    scale1_N: Tensor
    squared_NF: Tensor

    @staticmethod
    def empty(applications: int, rows: int, like: Tensor) -> "Saved":
        """Room for a pass; the input has room for the result too, as one more application."""

        def room(count: int, *shape: int, dtype: torch.dtype = like.dtype) -> Tensor:
            return like.new_empty((count, rows, *shape), dtype=dtype)

        return Saved(
            room(applications + 1, HIDDEN),
            room(applications + 1, dtype=torch.float32),
            room(applications, 3 * HIDDEN),
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


def head_tiles(matrix: Tensor, rows: int) -> GluonDescriptor:
    """A matrix of 16-bit numbers that kernels in Gluon move in tiles of one head's columns."""
    layout = gl.NVMMASharedLayout.get_default_for([rows, KEY], gl.bfloat16)
    return GluonDescriptor.from_tensor(matrix, [rows, KEY], layout)


def summed_outer(d_out: Tensor, inputs: Tensor) -> Tensor:
    """(outputs, inputs) gradient of a matrix, float32: summed over all axes but the last."""
    d_out, inputs = d_out.flatten(0, -2), inputs.flatten(0, -2)
    if d_out.is_cuda:  # a result in bf16 would let cuBLAS add its partial sums in bf16
        return torch.mm(d_out.T, inputs, out_dtype=torch.float32)
    return d_out.T @ inputs
