"""Kernels in C, compiled by this machine's own compiler on first use and kept in the user's cache.

Compiling here instead of at installation keeps the package pure Python: installing it cannot fail for want
of a compiler, one wheel serves every machine, and source that Ray ships to a node works as if installed. It
also fits a kernel to the processor. A library's name holds a hash of the source, the flags, and compiler
and processor as the compiler itself describes them: a cache that machines share gives each its own.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cellular.errors import CellularError

_FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-Wno-psabi"]


def compile_folder(folder: Path, name: str, flags: Sequence[str], missing: str, instead: str) -> Path:
    """The library made of a folder's C files.

    Args:
        folder: of .c and .h files.
        name: how the library's name begins.
        flags: for the compiler, beside those of all.
        missing: what to say where there is no C compiler.
        instead: what to do where it rejects the source.

    Raises:
        CellularError: there is no C compiler, it rejects the source, or the cache cannot be written.
    """
    from filelock import FileLock
    from platformdirs import user_cache_path

    command = [*_compiler(missing), *_FLAGS, *flags]
    root = user_cache_path("cellular") / "kernels"
    library = root / f"{name}-{_key(command, folder, instead)}.so"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{library}.lock"):  # a machine's workers start together: one compiles
            if not library.exists():
                _compile(command, folder, library, instead)
    except OSError as error:
        raise CellularError(f"cannot keep the kernel in {root} ({error}); set XDG_CACHE_HOME") from error
    return library


def _compiler(missing: str) -> list[str]:
    command = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or "cc"]
    if shutil.which(command[0]) is None:
        raise CellularError(missing)
    return command


def _key(command: list[str], folder: Path, instead: str) -> str:
    macros = _run([*command, "-dM", "-E", "-x", "c", os.devnull], instead)  # versions and instruction sets
    source = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    return hashlib.sha256(shlex.join(command).encode() + macros + source).hexdigest()[:20]


def _compile(command: list[str], folder: Path, library: Path, instead: str) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        output = Path(scratch) / library.name
        _run([*command, *map(str, sorted(folder.glob("*.c"))), "-o", str(output), "-lm"], instead)
        output.rename(library)


def _run(command: list[str], instead: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = next(
            (line for line in done.stderr.decode(errors="replace").splitlines() if "error" in line), ""
        )
        raise CellularError(f"{command[0]} cannot compile the kernel ({reason.strip()}); {instead}")
    return done.stdout
