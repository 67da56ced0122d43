"""Where a file that a command makes comes from: the command itself, and the code that ran."""

import shlex
import subprocess
import sys
from pathlib import Path

from cellular import __version__


def command_line(name: str) -> str:
    """The command as a person would type it."""
    arguments = sys.argv[1:]
    words = name.split()
    if arguments[: len(words)] == words:  # `cellular ret train`, in contrast to `python -m jobs.train_ret`
        arguments = arguments[len(words) :]
    return shlex.join(["cellular", *words, *arguments])


def commit() -> str:
    """The commit of the running code; its release, where it is not run from a git checkout."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"release {__version__}"
    return found.stdout.strip()
