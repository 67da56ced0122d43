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
import json, cellular.bank
from threadpoolctl import threadpool_info
print(json.dumps({one["filepath"]: one.get("architecture") for one in threadpool_info()}))
"""


def kernels_of_faiss(**environment: str) -> str:
    """By a process of its own: a library chooses once, when it is loaded."""
    inherited = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=inherited | environment, capture_output=True, check=True
    )
    found = [kernels for path, kernels in json.loads(done.stdout).items() if "faiss" in path and kernels]
    if not found:
        pytest.skip("this FAISS brings no OpenBLAS")
    return str(found[0])


def test_faiss_multiplies_by_the_kernels_that_numpy_found() -> None:
    assert kernels_of_faiss() == known_kernels()


def test_the_users_own_choice_of_kernels_stands() -> None:
    assert kernels_of_faiss(OPENBLAS_CORETYPE="Nehalem") == "Nehalem"
