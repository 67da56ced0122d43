"""Matrices in the order in which the C kernel reads them (`kernel/matrix.h`).

Shapes: R rows and C columns of a matrix, G groups of columns that share a scale, N blocks of 64 rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellular.decoders.ret.quantization import quantise
from cellular.decoders.ret.weights import BITS, Precision
from cellular.types import FloatArray

_BLOCK = 64
_NONE = np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """Weights in blocks of 64 rows; scales and sums are empty for float32 weights."""

    rows: int
    columns: int
    bits: int
    group: int
    """Columns that share a scale."""
    weights_N: NDArray[np.float32] | NDArray[np.uint8]
    """float32 (N, C, 64); codes + 128 (N, C / 4, 64, 4); or two codes + 8 a byte (N, C / 8, 64, 4)"""
    scales_NG64: FloatArray
    sums_R: FloatArray
    """Of each row's rounded weights."""


def pack(weight_RC: Tensor, precision: Precision) -> PackedMatrix:
    """A matrix in fp32, int8 or int4; one that is rounded already keeps its values."""
    rows, columns = weight_RC.shape
    weight_RC = weight_RC.detach().float().cpu()
    if precision == "fp32":
        blocks = weight_RC.numpy().reshape(-1, _BLOCK, columns).swapaxes(1, 2)
        return PackedMatrix(rows, columns, 32, columns, np.ascontiguousarray(blocks), _NONE, _NONE)
    matrix = quantise(weight_RC, BITS[precision])
    groups = matrix.scales.shape[1]
    scales = matrix.scales.float().numpy().reshape(-1, _BLOCK, groups).swapaxes(1, 2)
    return PackedMatrix(
        rows=rows,
        columns=columns,
        bits=BITS[precision],
        group=columns // groups,
        weights_N=_bytes(matrix.codes.numpy()) if precision == "int8" else _nibbles(matrix.codes.numpy()),
        scales_NG64=np.ascontiguousarray(scales),
        sums_R=matrix.dequantise().sum(1).numpy(),
    )


def _bytes(codes_RC: NDArray[np.int8]) -> NDArray[np.uint8]:
    unsigned = codes_RC.view(np.uint8) ^ 128  # adds 128
    return np.ascontiguousarray(unsigned.reshape(-1, _BLOCK, codes_RC.shape[1] // 4, 4).swapaxes(1, 2))


def _nibbles(codes_RC: NDArray[np.int8]) -> NDArray[np.uint8]:
    halves = (codes_RC + 8).view(np.uint8).reshape(-1, _BLOCK, codes_RC.shape[1] // 8, 2, 4)
    both = halves[:, :, :, 0] | halves[:, :, :, 1] << 4
    return np.ascontiguousarray(both.swapaxes(1, 2))
