"""The C kernels as functions of tensors."""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from cellular.c_kernels import compile_folder
from cellular.errors import CellularError

CHUNK: Final = 16  # positions from one state that is kept to the next, as in scan.c
_THREAD: Final = 1 << 16  # numbers of x that are worth one


def has_native(x: Tensor, wanted: bool | None) -> bool:
    """Whether a scan of `x` is to run in C: on a processor, if `wanted` or, if that is None, if it can.

    Raises:
        CellularError: it is wanted, but cannot be compiled.
    """
    if wanted is False or x.device.type != "cpu":
        return False
    found: bool = _is_there(x.dtype == torch.float64, wanted)
    return found


def _is_there(double: bool, wanted: bool | None) -> bool:
    if wanted:
        _library(double)
    return _compiles()


# As torch.compiler.assume_constant_result does, without its import of torch._dynamo: 1.7 s of every process.
_is_there._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _compiles() -> bool:
    try:
        _library(False)
        _library(True)
    except (CellularError, OSError):
        return False
    return True


@cache
def _library(double: bool) -> ctypes.CDLL:
    path = compile_folder(
        Path(__file__).parent / "kernel",
        "scan64" if double else "scan",
        ["-march=native", *(["-DDOUBLE"] if double else [])],
        missing="the scan in C needs a C compiler: install gcc or clang, or leave `compiled` out",
        instead="leave `compiled` out",
    )
    return ctypes.CDLL(str(path))


def run(name: str, tensors: Sequence[Tensor], texts: int, *sizes: int) -> None:
    """Call a kernel on contiguous tensors of one dtype, for all texts.

    Raises:
        MemoryError: there is none for its states.
    """
    function = getattr(_library(tensors[0].dtype == torch.float64), name)
    pointers = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    threads = max(1, min(texts, torch.get_num_threads(), tensors[0].numel() // _THREAD))
    bounds = [texts * number // threads for number in range(threads + 1)]

    def work(first: int, end: int) -> int:
        failed: int = function(pointers, ctypes.c_long(first), ctypes.c_long(end), *sizes)
        return failed

    if threads == 1:
        failed = work(0, texts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            failed = min(pool.map(work, bounds[:-1], bounds[1:]))
    if failed:
        raise MemoryError("no memory for the states of a scan")


def contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same, as `run` takes them."""
    return tuple(tensor.contiguous() for tensor in tensors)
