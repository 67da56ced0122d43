"""Matrices of 4 and 8 bits: weights of a row share a scale by groups along the input axis.

A weight is `code * scale`. Codes are integers, -8..7 in 4 bits and -127..127 in 8. Scales are float16, of
either sign: the largest weight of a group can so take the code -8, which has no positive twin. Groups are 32
weights in 4 bits and the whole row in 8. There is no zero point: a weight of zero stays zero.

`quantise` is a fixed point: weights that lie on such a grid already, because they were read from codes or
rounded with calibration, keep their values bit for bit. A model in memory therefore is plain float32 matrices
whatever it was read from, and its codes can be had again from them at any time.

Tensors in a file (`weights.py` reads and writes them), for a matrix NAME of R rows and C columns:

    NAME.int8    int8 (R, C)          codes
    NAME.int4    uint8 (R, C / 2)     codes + 8: column 2j in the low half of byte j, 2j + 1 in the high half
    NAME.scales  float16 (R, G)       group g is columns g * C / G to (g + 1) * C / G - 1

Shapes: R rows, C columns, G groups of a row, S weights of a group.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Bits = Literal[4, 8]
GROUP: dict[Bits, int | None] = {4: 32, 8: None}  # None: the whole row
_RANGE: dict[Bits, tuple[int, int]] = {4: (-8, 7), 8: (-127, 127)}
_EVERY = 16  # steps of training between two searches for scales
# The peak of a group divided by these gives the scales tried: the integers keep what lies on a grid already,
# those above 8 clip the peak to serve the others better. In 8 bits clipping never pays.
_SIZES = [8, 7, 7.25, 7.5, 7.75, 8.25, 8.5, 8.75, 9, 9.5, 10, 10.5, 11, 6, 5, 4, 3, 2, 1]
_DIVISORS: dict[Bits, list[float]] = {4: [sign * size for size in _SIZES for sign in (-1, 1)], 8: [127]}


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """Codes and scales of one matrix."""

    codes: Tensor
    """(R, C) int8"""
    scales: Tensor
    """(R, G) float16"""

    def dequantise(self) -> Tensor:
        """(R, C) float32."""
        groups_RGS = self.codes.float().view(*self.scales.shape, -1)
        return (groups_RGS * self.scales.float().unsqueeze(-1)).flatten(1)


def quantise(weight_RC: Tensor, bits: Bits, group: int | None = None) -> QuantizedMatrix:
    """Round a matrix to the nearest codes, with the scales of least squared error.

    Args:
        weight_RC: (R, C) float.
        bits: 4 or 8.
        group: weights that share a scale, a divisor of C; by default `GROUP[bits]`.

    Raises:
        ValueError: the group does not divide C, or a weight is not finite.
    """
    if not torch.isfinite(weight_RC).all():
        raise ValueError("weights hold NaN or infinity: they cannot be rounded")
    scales_RG = search_scales(weight_RC, bits, group)
    return QuantizedMatrix(round_to_grid(weight_RC, scales_RG, bits), scales_RG)


def search_scales(
    weight_RC: Tensor, bits: Bits, group: int | None = None, importance_C: Tensor | None = None
) -> Tensor:
    """(R, G) float16 scales of least squared error, each column's error weighed by its importance."""
    groups_RGS = _groups(weight_RC, group or GROUP[bits])
    importance = 1.0 if importance_C is None else importance_C.view(groups_RGS.shape[1:])
    peak_RG1 = groups_RGS.abs().amax(-1, keepdim=True)
    best_RG = torch.zeros_like(peak_RG1[..., 0])
    least_RG = torch.full_like(best_RG, torch.inf)
    for divisor in _DIVISORS[bits]:
        scale_RG1 = (peak_RG1 / divisor).half().float()
        error_RGS = _round(groups_RGS, scale_RG1, bits) * scale_RG1 - groups_RGS
        loss_RG = (error_RGS.square() * importance).sum(-1)
        best_RG = torch.where(loss_RG < least_RG, scale_RG1[..., 0], best_RG)
        least_RG = torch.minimum(loss_RG, least_RG)
    return best_RG.half()


def round_to_grid(weight_RC: Tensor, scales_RG: Tensor, bits: Bits) -> Tensor:
    """(R, C) int8: the nearest codes under given scales."""
    groups_RGS = weight_RC.float().view(*scales_RG.shape, -1)
    return _round(groups_RGS, scales_RG.float().unsqueeze(-1), bits).flatten(1).to(torch.int8)


def _round(groups_RGS: Tensor, scale_RG1: Tensor, bits: Bits) -> Tensor:
    safe_RG1 = torch.where(scale_RG1 == 0, 1.0, scale_RG1)  # weights too small for float16 become zero
    return (groups_RGS / safe_RG1).round().clamp(*_RANGE[bits])


def _groups(weight_RC: Tensor, group: int | None) -> Tensor:
    rows, columns = weight_RC.shape
    size = group or columns
    if columns % size:
        raise ValueError(f"groups of {size} weights do not divide {columns} columns")
    return weight_RC.float().view(rows, columns // size, size)


def pack_nibbles(codes: Tensor) -> Tensor:
    """Codes -8..7, (..., N) int8, two a byte, (..., (N + 1) / 2) uint8; the last half of an odd N is zero."""
    unsigned = functional.pad((codes + 8).to(torch.uint8), (0, codes.shape[-1] % 2))
    return unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes of each row, (..., count) int8: the inverse of `pack_nibbles`."""
    unsigned = torch.stack([packed & 15, packed >> 4], -1).flatten(-2)[..., :count]
    return unsigned.to(torch.int8) - 8


class FakeQuantiser:
    """Lets a model feel in training how its matrices will be rounded (Jacob et al. 2018).

    Inside `with quantiser:` the weights are their rounded values, in place; on leaving they are themselves
    again. Gradients taken inside are those of the rounded weights; the optimiser applies them to the others:
    the straight-through estimator of Bengio et al. 2013, whatever compiles, shards or averages the model.

    Args:
        weights: name → matrix, the parameters' own memory.
        bits: 4 or 8.
    """

    def __init__(self, weights: Mapping[str, Tensor], bits: Bits) -> None:
        self._weights = list(weights.values())
        self._bits: Bits = bits
        self._own = [torch.empty_like(weight) for weight in self._weights]
        self._scales: list[Tensor] = []
        self._entries = 0

    @torch.no_grad()
    def __enter__(self) -> None:
        if self._entries % _EVERY == 0:
            self._scales = [search_scales(weight, self._bits) for weight in self._weights]
        self._entries += 1
        torch._foreach_copy_(self._own, self._weights)
        for weight, scales in zip(self._weights, self._scales, strict=True):
            weight.copy_(QuantizedMatrix(round_to_grid(weight, scales, self._bits), scales).dequantise())

    @torch.no_grad()
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch._foreach_copy_(self._weights, self._own)
