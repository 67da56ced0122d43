"""Decoding with a kernel in C: the whole loop of many texts in one call, weights of 32, 8 or 4 bits.

With int8 and int4 weights each row of inputs is rounded to 8 bits by its peak, and products are summed as
integers; keys and values are kept in float16, and all else is float32. A row is worked on alone: its text
does not depend on the batch.
"""

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cellular.decoders.ret.engines.build import compile_kernel
from cellular.decoders.ret.engines.compiled import (
    LOGIT_SCALE,
    CacheArray,
    CompiledEngine,
    PieceArray,
    rotary_arrays,
    to_array,
)
from cellular.decoders.ret.engines.packing import pack
from cellular.decoders.ret.model import RET, VOCABULARY
from cellular.decoders.ret.weights import Precision
from cellular.large_pages import LargePages
from cellular.types import FloatArray, IntArray

_SLOTS = 4  # texts written at once: the weights are read once for all, and their caches stay near the core

_MOST_BYTES = 8  # a weight; of what is kept, the head is there twice, and nothing is wider than float32

_INT, _POINTER = ctypes.c_int32, ctypes.c_void_p


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("rows", "columns", "bits", "group", "positive")),
        *((name, _POINTER) for name in ("weights", "scales", "sums")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, _INT) for name in ("applications", "prefixes", "halves")),
        *((name, _Matrix) for name in ("query_key_value", "attention_out", "mlp_in", "mlp_out", "head")),
        *((name, _POINTER) for name in ("input_norm", "attention_norm", "mlp_norm", "output_norm")),
        *((name, _POINTER) for name in ("steps", "bias", "pieces")),
    )


class _Rotary(ctypes.Structure):
    _fields_ = (("cosine", _POINTER), ("sine", _POINTER))


class NativeEngine(CompiledEngine):
    """Greedy decoding and single steps in C.

    Args:
        target: one of `build.TARGETS`.

    Raises:
        CellularError: the kernel cannot be compiled on this machine.
    """

    name = "native"
    precisions = ("fp32", "int8", "int4")

    def __init__(self, model: RET, precision: Precision = "fp32", *, target: str = "native") -> None:
        super().__init__(model, precision)
        if precision != "fp32":
            self.cache_type = np.float16  # half of what attention reads; far finer than the rounded inputs
        self._library = _load(compile_kernel(target))
        # What the structure points to: a whole layer is read again for every piece.
        self._memory = LargePages(_MOST_BYTES * sum(weight.numel() for weight in model.parameters()))
        self._structure = self._fill(model)

    def _fill(self, model: RET) -> _Model:
        return _Model(
            applications=model.config.applications,
            prefixes=model.config.prefix_states,
            halves=self.cache_type == np.float16,
            query_key_value=self._matrix(model.query_key_value),
            attention_out=self._matrix(model.attention_out),
            mlp_in=self._matrix(model.mlp_in),
            mlp_out=self._matrix(model.mlp_out, positive=True),
            head=self._matrix(model.pieces),
            input_norm=self._vector(model.input_norm),
            attention_norm=self._vector(model.attention_norm),
            mlp_norm=self._vector(model.mlp_norm),
            output_norm=self._vector(model.output_norm * LOGIT_SCALE),
            steps=self._vector(model.steps()),
            bias=self._vector(model.output_bias),
            pieces=self._pointer(self._pieces_VD),
        )

    def _pointer(self, array: NDArray[np.generic]) -> int:
        return self._memory.keep(array).ctypes.data

    def _vector(self, tensor: Tensor) -> int:
        return self._pointer(to_array(tensor))

    def _matrix(self, weight_RC: Tensor, positive: bool = False) -> _Matrix:
        packed = pack(weight_RC, self.precision)
        pointers = map(self._pointer, (packed.weights_N, packed.scales_NG64, packed.sums_R))
        return _Matrix(packed.rows, packed.columns, packed.bits, packed.group, positive, *pointers)

    def _forward(self, cache_BA2TD: CacheArray, position: int, inputs_BD: FloatArray) -> FloatArray:
        texts, length = len(inputs_BD), cache_BA2TD.shape[3]
        logits_BV = np.empty((texts, VOCABULARY), np.float32)
        rotary = rotary_arrays(length)
        arrays = (cache_BA2TD, inputs_BD, logits_BV)
        self._library.ret_step(
            ctypes.byref(self._structure), _pointers(rotary), texts, length, position, *map(_address, arrays)
        )
        return logits_BV

    def _write(
        self, prefix_BPD: FloatArray, offsets_BD: FloatArray, ids_BL: PieceArray, lengths_B: IntArray
    ) -> None:
        texts, most = ids_BL.shape
        slots, length = min(texts, _SLOTS), prefix_BPD.shape[1] + most
        shape = (slots, self._structure.applications, 2, length, prefix_BPD.shape[2])
        caches = np.empty(shape, self.cache_type)
        rotary = rotary_arrays(length)
        arrays = (caches, prefix_BPD, offsets_BD, ids_BL, lengths_B)
        self._library.ret_greedy(
            ctypes.byref(self._structure), _pointers(rotary), texts, most, slots, *map(_address, arrays)
        )


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    model = (ctypes.POINTER(_Model), _Rotary)
    library.ret_step.argtypes = (*model, *[_INT] * 3, *[_POINTER] * 3)
    library.ret_greedy.argtypes = (*model, *[_INT] * 3, *[_POINTER] * 5)
    library.ret_step.restype = library.ret_greedy.restype = None
    return library


def _pointers(rotary: tuple[FloatArray, FloatArray]) -> _Rotary:
    return _Rotary(*map(_address, rotary))


def _address(array: NDArray[np.generic]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("the kernel reads contiguous arrays only")
    return array.ctypes.data
