"""What FAISS's matrix products are told of the processor."""

import json
import os
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info

from cellular.bank.faiss_library import known_kernels

pytestmark = pytest.mark.skipif(
    known_kernels() is None, reason=f"FAISS's OpenBLAS has no kernels for {threadpool_info()}"
)

LOADED = """
import json
from cellular.bank.faiss_library import known_kernels
from threadpoolctl import threadpool_info
print(json.dumps([known_kernels(), {one["filepath"]: one.get("architecture") for one in threadpool_info()}]))
"""


def kernels(**environment: str) -> tuple[str, str]:
    """NumPy's and FAISS's, by a process of its own: a library chooses once, when it is loaded."""
    inherited = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=inherited | environment, capture_output=True, check=True
    )
    of_numpy, libraries = json.loads(done.stdout)
    found = [name for path, name in libraries.items() if "faiss" in path and name]
    if not found:
        pytest.skip("this FAISS brings no OpenBLAS")
    return of_numpy, found[0]


def test_faiss_multiplies_by_the_kernels_that_numpy_found() -> None:
    of_numpy, of_faiss = kernels()
    assert of_faiss == of_numpy


def test_the_users_own_choice_of_kernels_stands() -> None:
    assert kernels(OPENBLAS_CORETYPE="Nehalem")[1] == "Nehalem"
