"""The kernel as a function of arrays."""

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellular.batches import Tokens
from cellular.bert_engine.weights import INPUT_PARTS, Linear, Norm, Precision, Weights
from cellular.c_kernels import compile_folder
from cellular.graphs import UnsupportedModelError
from cellular.types import FloatArray

_FEATURES = {"amx_tile", "amx_bf16", "avx512_bf16", "avx512dq", "avx512bw"}
_BLOCK = 32  # tokens that are multiplied at once
_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long


class _Linear(ctypes.Structure):
    _fields_ = (("parts", ctypes.c_int32), ("weights", _POINTER), ("bias", _POINTER))


class _Norm(ctypes.Structure):
    _fields_ = (("scale", _POINTER), ("shift", _POINTER))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Linear) for name in ("query_key_value", "attention_out", "up", "down")),
        *((name, _Norm) for name in ("attention_norm", "norm")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
        ("words", _POINTER),
        ("places", _POINTER),
        ("norm", _Norm),
        ("layer", ctypes.POINTER(_Layer)),
    )


class Kernel:
    """A model's forward pass.

    Args:
        weights: of the model.
        precision: as they were read.

    Raises:
        UnsupportedModelError: not on this processor, or this system.
        CellularError: the kernel cannot be compiled.
    """

    def __init__(self, weights: Weights, precision: Precision) -> None:
        self._weights = weights  # what the structures point to
        self._hidden = weights.words_VH.shape[1]
        self._library = _library(
            self._hidden, weights.inner, weights.share, weights.head, INPUT_PARTS[precision]
        )
        layers = [_Layer(*(_structure(part) for part in layer)) for layer in weights.layers]
        self._model = _Model(
            len(layers),
            weights.epsilon,
            weights.words_VH.ctypes.data,
            weights.places_PH.ctypes.data,
            _structure(weights.norm),
            (_Layer * len(layers))(*layers),
        )

    def run(self, tokens: Tokens, most: int, threads: int) -> FloatArray:
        """(N, H) float32: the mean of each text's last states.

        Args:
            tokens: numbers below V, at most P a text.
            most: the tokens that a thread takes at once; a longer text is taken alone.
            threads: at most.

        Raises:
            MemoryError: there is none for what is in between.
        """
        vectors_NH = np.empty((len(tokens.lengths_N), self._hidden), np.float32)
        starts = np.append(tokens.starts_N, len(tokens.ids_T))
        bounds = chunk_bounds(starts, min(most, -(-len(tokens.ids_T) // threads)))
        longest = int(np.diff(starts[bounds]).max(initial=0))
        taken = _LONG(0)

        def work(_: int) -> int:
            failed: int = self._library.bert_encode(
                ctypes.byref(self._model),
                *map(_address, (tokens.ids_T, starts, bounds)),
                len(bounds) - 1,
                -(-longest // _BLOCK) * _BLOCK,
                ctypes.byref(taken),
                _address(vectors_NH),
            )
            return failed

        threads = min(threads, len(bounds) - 1)
        if threads <= 1:
            failed = work(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                failed = min(pool.map(work, range(threads)))
        if failed:
            raise MemoryError("no memory for a teacher's forward pass")
        return vectors_NH


def chunk_bounds(starts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first text of each chunk, and the end: chunks of at most `most` tokens, or of one text.

    A chunk is at least half full, and ends where the fewest rows are computed for no token.
    """
    bounds, texts = [0], len(starts) - 1
    while bounds[-1] < texts:
        first = bounds[-1]
        end = int(np.searchsorted(starts, starts[first] + most, "right")) - 1
        sizes = starts[first + 1 : end + 1] - starts[first]
        if end == texts or not len(sizes):
            bounds.append(max(end, first + 1))
            continue
        empty = np.where(2 * sizes >= most, -sizes % _BLOCK / sizes, 1)
        bounds.append(end - int(empty[::-1].argmin()))  # of equals the fullest
    return np.array(bounds, np.int64)


def _structure(part: Linear | Norm) -> ctypes.Structure:
    if isinstance(part, Linear):
        return _Linear(part.parts, part.weights.ctypes.data, part.bias_N.ctypes.data)
    return _Norm(*(array.ctypes.data for array in part))


def _address(array: NDArray[np.generic]) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data


@cache
def _library(hidden: int, inner: int, share: int, head: int, parts: int) -> ctypes.CDLL:
    _check_processor()
    shape = {"HIDDEN": hidden, "INNER": inner, "SHARE": share, "HEAD": head, "INPUT_PARTS": parts}
    path = compile_folder(
        Path(__file__).parent / "kernel",
        "bert",
        ["-march=native", *(f"-D{name}={size}" for name, size in shape.items())],
        missing="the teacher in C needs a C compiler: install gcc or clang",
        instead="the teacher runs without it",
    )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnsupportedModelError(f"the kernel cannot be loaded: {error}") from error
    library.bert_encode.argtypes = (*[_POINTER] * 4, _LONG, ctypes.c_int32, *[_POINTER] * 2)
    if library.bert_start():
        raise UnsupportedModelError("this system does not lend AMX to programs")
    return library


def _check_processor() -> None:
    file = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", file.read_text() if file.is_file() else "", re.MULTILINE)
    if missing := _FEATURES - set(flags[1].split() if flags else ()):
        raise UnsupportedModelError(f"this processor has no {min(missing)}")
