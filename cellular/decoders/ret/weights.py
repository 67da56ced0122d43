"""A model's weights as the tensors of a file, in any precision, dense or sparse; and back.

Every parameter that is no matrix is float32 under its own name. So are matrices in fp32; in bf16 they are
bfloat16; in int8 and int4 codes and scales, as `quantization` describes. One with enough zeros is sparse:

    NAME.mask    uint8 (R, C / 8)     column 8j + i is bit i of byte j; set where the weight is not zero
    NAME         (N,)                 the N weights that are not zero, row by row; likewise NAME.int8
    NAME.int4    uint8 ((N + 1) / 2,) their codes, two a byte

Whether a matrix is sparse is decided by what takes fewer bytes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from cellular.config import RETPrecision
from cellular.decoders.ret.model import RET
from cellular.decoders.ret.quantization import Bits, QuantizedMatrix, pack_nibbles, quantise, unpack_nibbles
from cellular.decoders.ret.sparsity import pack_mask, unpack_mask
from cellular.errors import CellularError

Precision = RETPrecision
MATRICES = ("pieces", "projection", "query_key_value", "attention_out", "mlp_in", "mlp_out")
BITS: dict[Precision, Bits] = {"int8": 8, "int4": 4}
_WIDTH: dict[Precision, int] = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}
_FLOAT: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matrices(model: RET) -> dict[str, Tensor]:
    """The weights that are rounded and pruned: all but 2,048 of them. Views, not copies."""
    return {name: getattr(model, name).data for name in MATRICES}


def round_weights(weight_RC: Tensor, precision: Precision) -> Tensor:
    """(R, C) float32: what is left of a matrix that is stored in a precision."""
    if precision in BITS:
        return quantise(weight_RC, BITS[precision]).dequantise()
    return weight_RC.to(_FLOAT[precision]).float()


def pack_weights(model: RET, precision: Precision) -> dict[str, Tensor]:
    """Tensors to be saved; weights that are rounded or pruned already lose nothing.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().float().cpu()
        tensors |= _pack_matrix(name, weight, precision) if name in MATRICES else {name: weight}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _pack_matrix(name: str, weight_RC: Tensor, precision: Precision) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    if precision in BITS:
        matrix = quantise(weight_RC, BITS[precision])
        tensors[f"{name}.scales"] = matrix.scales
        stored = matrix.codes
    else:
        stored = weight_RC.to(_FLOAT[precision])
    kept_RC = stored != 0
    if int((~kept_RC).sum()) * _WIDTH[precision] > stored.numel():  # the mask costs a bit a weight
        tensors[f"{name}.mask"] = pack_mask(kept_RC)
        stored = stored[kept_RC]
    return tensors | {_key(name, precision): pack_nibbles(stored) if precision == "int4" else stored}


def _key(name: str, precision: Precision) -> str:
    return f"{name}.{precision}" if precision in BITS else name


def unpack_weights(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], precision: Precision
) -> dict[str, Tensor]:
    """Weights in float32 from the tensors of a file.

    Args:
        tensors: as `pack_weights` made them.
        shapes: of every parameter of the model.
        precision: of the file.

    Raises:
        CellularError: a tensor is missing, unknown, or not what the shapes and the precision call for.
    """
    reader = _Reader(tensors)
    weights = {
        name: _unpack_matrix(reader, name, shape, precision)
        if name in MATRICES
        else reader.take(name, torch.float32, tuple(shape))
        for name, shape in shapes.items()
    }
    reader.finish()
    return weights


def _unpack_matrix(reader: "_Reader", name: str, shape: torch.Size, precision: Precision) -> Tensor:
    rows, columns = shape
    mask = reader.take_mask(name, rows, columns)
    shape = shape if mask is None else torch.Size([int(mask.sum())])
    key = _key(name, precision)
    if precision == "int4":
        packed = reader.take(key, torch.uint8, (*shape[:-1], (shape[-1] + 1) // 2))
        stored = unpack_nibbles(packed, shape[-1])
    else:
        stored = reader.take(key, _FLOAT.get(precision, torch.int8), tuple(shape))
    if mask is not None:
        stored = torch.zeros(rows, columns, dtype=stored.dtype).masked_scatter_(mask, stored)
    if precision not in BITS:
        return stored.float()
    return QuantizedMatrix(stored, reader.take_scales(name, rows, columns)).dequantise()


class _Reader:
    """Takes each tensor of a file once, if it is what is expected."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._left = dict(tensors)

    def take(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise _damaged(name, "is missing")
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            found, wanted = _kind(tensor.dtype, tensor.shape), _kind(dtype, shape)
            raise _damaged(name, f"is {found}, not {wanted}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise _damaged(name, "holds NaN or infinity")
        return tensor

    def take_mask(self, name: str, rows: int, columns: int) -> Tensor | None:
        key = f"{name}.mask"
        if key not in self._left:
            return None
        return unpack_mask(self.take(key, torch.uint8, (rows, columns // 8)))

    def take_scales(self, name: str, rows: int, columns: int) -> Tensor:
        key = f"{name}.scales"
        found = self._left.get(key)
        groups = found.shape[-1] if found is not None and found.ndim == 2 else 0
        if found is not None and (groups == 0 or columns % groups):
            raise _damaged(key, f"has {groups} groups, which do not divide {columns} columns")
        return self.take(key, torch.float16, (rows, groups))

    def finish(self) -> None:
        if self._left:
            raise _damaged(min(self._left), "belongs to no weight of this model")


def _kind(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _damaged(name: str, why: str) -> CellularError:
    return CellularError(f"the checkpoint's weights are damaged: {name} {why}; take the checkpoint again")
