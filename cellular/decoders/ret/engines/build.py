"""The C kernel, compiled by this machine's own compiler on first use and kept in the user's cache.

Compiling here instead of at installation keeps the package pure Python: installing it cannot fail for want
of a compiler, one wheel serves every machine, and source that Ray ships to a node works as if installed. It
also fits the kernel to the processor. The library's name holds a hash of the source, the flags, and compiler
and processor as the compiler itself describes them: a cache that machines share gives each its own.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from cellular.decoders.ret.model import HEADS, HIDDEN, INNER, VOCABULARY
from cellular.errors import CellularError

_SOURCE = Path(__file__).parent / "kernel"
_FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-Wno-psabi"]
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
    from filelock import FileLock
    from platformdirs import user_cache_path

    command = [
        *_compiler(),
        *_FLAGS,
        *TARGETS[target],
        *(f"-D{name}={value}" for name, value in _SHAPE.items()),
    ]
    root = user_cache_path("cellular") / "kernels"
    library = root / f"ret-{_key(command)}.so"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{library}.lock"):  # a machine's workers start together: one compiles
            if not library.exists():
                _compile(command, library)
    except OSError as error:
        raise CellularError(f"cannot keep the kernel in {root} ({error}); set XDG_CACHE_HOME") from error
    return library


def _compiler() -> list[str]:
    command = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or "cc"]
    if shutil.which(command[0]) is None:
        raise CellularError("engine 'native' needs a C compiler: install gcc or clang, or use engine 'numba'")
    return command


def _key(command: list[str]) -> str:
    macros = _run([*command, "-dM", "-E", "-x", "c", os.devnull])  # versions and instruction sets
    source = b"".join(path.read_bytes() for path in sorted(_SOURCE.iterdir()))
    return hashlib.sha256(shlex.join(command).encode() + macros + source).hexdigest()[:20]


def _compile(command: list[str], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        output = Path(scratch) / library.name
        _run([*command, *map(str, sorted(_SOURCE.glob("*.c"))), "-o", str(output), "-lm"])
        output.rename(library)


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = next(
            (line for line in done.stderr.decode(errors="replace").splitlines() if "error" in line), ""
        )
        raise CellularError(f"{command[0]} cannot compile the kernel ({reason.strip()}); use engine 'numba'")
    return done.stdout
