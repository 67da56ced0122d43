"""FAISS, with its matrix products told which processor this is.

Its wheels bring an OpenBLAS of 2021, which takes later processors for one of 2004: training an index took up
to six times as long. NumPy's, which is new, knows them; what it found must be in the environment before FAISS
is loaded.
"""

import os
from importlib import import_module
from typing import Any

import numpy  # noqa: F401 - the OpenBLAS that is asked comes with it
from threadpoolctl import threadpool_info

# What NumPy's OpenBLAS may say of an x86-64 processor, and the best that FAISS's knows for it.
KERNELS = {
    "SapphireRapids": "SkylakeX",
    "Cooperlake": "SkylakeX",
    "SkylakeX": "SkylakeX",
    "Zen": "Zen",
    "Haswell": "Haswell",
}


def known_kernels() -> str | None:
    """The kernels for this processor by NumPy's OpenBLAS, if it uses one and FAISS's has them."""
    found = (one.get("architecture") for one in threadpool_info() if one["internal_api"] == "openblas")
    return next((KERNELS[name] for name in found if name in KERNELS), None)


if "OPENBLAS_CORETYPE" not in os.environ and (kernels := known_kernels()):
    os.environ["OPENBLAS_CORETYPE"] = kernels

faiss: Any = import_module("faiss")  # its type stubs lag behind its classes
merge_ondisk: Any = import_module("faiss.contrib.ondisk").merge_ondisk
