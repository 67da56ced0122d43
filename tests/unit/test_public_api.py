"""The public API: every name is there, and importing the package is cheap."""

import subprocess
import sys

import pytest

import cellular


@pytest.mark.parametrize("name", cellular.__all__)
def test_every_public_name_is_importable_and_documented(name: str) -> None:
    assert getattr(cellular, name).__doc__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="PhraseBang"):
        cellular.PhraseBang  # noqa: B018


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, cellular\n"
        "heavy = {'torch', 'faiss', 'openvino', 'pyarrow', 'sentence_transformers', 'ray'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
