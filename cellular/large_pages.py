"""Memory for weights that a kernel reads again and again."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_PAGE = 2 << 20
LINE = 64  # bytes in a cache line
Number = TypeVar("Number", bound=np.generic)


class LargePages:
    """Arrays side by side on pages of 2 MB, where the system has them: a core then looks up fewer addresses.

    NumPy asks for such pages for arrays of 4 MB or more, and only whole ones are granted. So the memory
    begins at one and is longer than what is kept; what is not written costs addresses alone.

    Args:
        size: bytes of all arrays, and a cache line for each.
    """

    def __init__(self, size: int) -> None:
        memory = np.empty(size + 3 * _PAGE, np.uint8)
        self._free = memory[-memory.ctypes.data % _PAGE :]

    def keep(self, array: NDArray[Number]) -> NDArray[Number]:
        """A contiguous copy that begins at a cache line."""
        place = self._free[: array.nbytes].view(array.dtype).reshape(array.shape)
        place[...] = array
        self._free = self._free[-(-array.nbytes // LINE) * LINE :]
        return place
