"""`cellular lattice show`: pictures of a text's way through a lattice."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import run

OUTPUT = "Folder for steps.png, wave.gif and a picture of each step."


def main(
    text: Annotated[str, typer.Argument(help="What enters the lattice.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=OUTPUT)] = Path("lattice"),
    checkpoint: Annotated[
        str, typer.Option(help="A packaged lattice's name, or a folder.")
    ] = "lattice-denoise-all-MiniLM-L6-v2",
    teacher: Annotated[str, typer.Option(help="A name, a folder or a hub name.")] = "all-MiniLM-L6-v2",
) -> None:
    """Draw how a text's embedding crosses the lattice: what it changes in each cell, step by step."""
    from cellular.errors import CellularError
    from cellular.lattice import load_lattice
    from cellular.teachers import load_teacher
    from pipelines.lattice_pictures import draw

    loaded, embedder = load_lattice(checkpoint), load_teacher(teacher)
    if loaded.teacher != embedder.fingerprint:
        raise CellularError(
            f"{checkpoint} is for embeddings of {loaded.teacher}, not of {embedder.fingerprint}: "
            "name its teacher with --teacher"
        )
    (embedding,) = embedder.encode([text])
    for path in draw(loaded.lattice, embedding, text, output):
        print(path)


if __name__ == "__main__":
    run(main)
