"""The form of checkpoints on disk, which releases to come must read and write too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellular.adapter import UniversalAdapter
from cellular.cct import load_text_to_text, save_text_to_text
from cellular.checkpoint_files import CARD, find_checkpoint, packaged_checkpoints, read_kind
from cellular.decoders.ret.checkpoint import load_checkpoint, save_checkpoint
from cellular.lattice import load_lattice, save_lattice
from cellular.lsa import LSATeacher

COPIES: dict[str, Callable[[str, Path, dict[str, Any]], None]] = {
    "adapter": lambda name, folder, _: UniversalAdapter.load(name).save(folder),
    "lattice": lambda name, folder, _: save_lattice(folder, load_lattice(name)),
    "lsa": lambda name, folder, training: LSATeacher.load(name).save(folder, training=training),
    "model": lambda name, folder, _: save_checkpoint(folder, load_checkpoint(name)),
    "text_to_text": lambda name, folder, _: save_text_to_text(folder, load_text_to_text(name)),
}


@pytest.mark.parametrize("name", packaged_checkpoints())
def test_a_shipped_checkpoint_is_written_as_it_was_read(name: str, tmp_path: Path) -> None:
    shipped = find_checkpoint(name)
    settings = json.loads((shipped / "config.json").read_bytes())
    COPIES[read_kind(shipped / "config.json", list(COPIES))](name, tmp_path, settings["training"])
    for path in shipped.iterdir():
        assert path.name == CARD or (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
