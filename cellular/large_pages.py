"""Memory for weights that a kernel reads again and again."""

import mmap
from contextlib import suppress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_PAGE = 2 << 20
LINE = 64  # bytes in a cache line
Number = TypeVar("Number", bound=np.generic)


class LargePages:
    """Arrays side by side on pages of 2 MB, where the system has them: a core then looks up fewer addresses.

    Only whole pages are granted, and only of memory that nothing has written to, as malloc's may have been.
    So it is asked of the system, begins at such a page and ends behind one; what is not written costs
    addresses alone.

    Args:
        size: bytes of all arrays, and a cache line for each.
    """

    def __init__(self, size: int) -> None:
        memory = _fresh(size + 2 * _PAGE)
        self._free = memory[-memory.ctypes.data % _PAGE :]

    def keep(self, array: NDArray[Number]) -> NDArray[Number]:
        """A contiguous copy that begins at a cache line."""
        place = self._free[: array.nbytes].view(array.dtype).reshape(array.shape)
        place[...] = array
        self._free = self._free[-(-array.nbytes // LINE) * LINE :]
        return place


def _fresh(size: int) -> NDArray[np.uint8]:
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux
        return np.empty(size, np.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
