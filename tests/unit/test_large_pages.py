"""Arrays side by side on large pages."""

import re
from pathlib import Path

import numpy as np
import pytest

from cellular.large_pages import LINE, LargePages

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def test_arrays_are_kept_as_they_are_each_at_a_cache_line() -> None:
    arrays = [
        np.arange(7, dtype=np.float32).reshape(7, 1),
        np.arange(130, dtype=np.uint8),
        np.empty(0, np.float32),
        np.arange(12, dtype=np.uint16).reshape(3, 4),
    ]
    memory = LargePages(sum(array.nbytes + LINE for array in arrays))
    kept = [memory.keep(array) for array in arrays]
    for before, after in zip(arrays, kept, strict=True):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        np.testing.assert_array_equal(after, before)
        assert after.flags.c_contiguous and after.ctypes.data % LINE == 0


@pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="this system has no large pages"
)
def test_a_few_arrays_share_one_large_page_whatever_was_allocated_before() -> None:
    np.ones(24 << 20, np.uint8)  # from here on malloc keeps what is freed, on the pages that it has
    used = [np.ones(3 << 20, np.uint8) for _ in range(8)]
    del used
    memory = LargePages(1 << 20)
    kept = [memory.keep(np.ones(1 << 16, np.float32)) for _ in range(2)]
    assert kept[0].ctypes.data % (2 << 20) == 0
    assert kept[1].ctypes.data - kept[0].ctypes.data == 1 << 18
    assert large_kilobytes(kept[0].ctypes.data) >= 2048


def large_kilobytes(address: int) -> int:
    """What of the mapping that holds an address stands on large pages."""
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        start, end = (int(part, 16) for part in mapping.split(maxsplit=1)[0].split("-"))
        if start <= address < end:
            return int(re.search(r"AnonHugePages:\s+(\d+)", mapping)[1])  # type: ignore[index]
    raise AssertionError("no such mapping")
