"""The kernel in C as a library, made where it runs: see `c_kernels`."""

from functools import cache
from pathlib import Path

from cellular.c_kernels import compile_folder
from cellular.decoders.ret.model import HEADS, HIDDEN, INNER, VOCABULARY

_SHAPE = {"HIDDEN": HIDDEN, "HEADS": HEADS, "INNER": INNER, "VOCABULARY": VOCABULARY}
TARGETS: dict[str, list[str]] = {
    "native": ["-march=native"],
    "avx2": ["-march=x86-64-v3"],
    "plain": ["-DPLAIN"],
}
"""Flags that choose among the kernel's versions; all give the same text."""


@cache
def compile_kernel(target: str = "native") -> Path:
    """The compiled library for one of TARGETS.

    Raises:
        CellularError: there is no C compiler, it rejects the source, or the cache cannot be written.
    """
    return compile_folder(
        Path(__file__).parent / "kernel",
        "ret",
        [*TARGETS[target], *(f"-D{name}={value}" for name, value in _SHAPE.items())],
        missing="engine 'native' needs a C compiler: install gcc or clang, or use engine 'numba'",
        instead="use engine 'numba'",
    )
