"""What every report needs: one page that asks no other file or host, and its files in a folder."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from cellular.errors import CellularError
from cellular.files import write_atomically


def render(template: str, **values: Any) -> str:
    """A page of a template in this folder."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = files("pipelines").joinpath(template).read_text("utf-8")
    return environment.from_string(source).render(**values)


def write_files(contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files by their names into a folder, made if need be.

    Raises:
        CellularError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise CellularError(f"cannot write the report to {folder}: {error.strerror}") from error
    return [folder / name for name in contents]
