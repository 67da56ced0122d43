"""Commands whose work outlives them: stopped at any point, they go on when run again."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def resumable() -> Iterator[None]:
    """End on Ctrl-C with exit code 130 and on SIGTERM, which `ray job stop` sends, with 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        yield
    except SystemExit as stopped:
        print("stopped; run the same command to go on", file=sys.stderr)
        if stopped.code == signal.SIGTERM:  # Ray's own handler, in force while it starts
            raise SystemExit(128 + signal.SIGTERM) from None
        raise


def _stop(number: int, frame: FrameType | None) -> None:
    # Ray complains there of the workers that it ends now.
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - to the end of the process
    raise SystemExit(128 + number)
