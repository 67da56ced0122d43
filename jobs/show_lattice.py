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
        str | None, typer.Option(help="A packaged lattice's name, or a folder; by default the direct mode's.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="By default the direct mode's.")] = None,
) -> None:
    """Draw how a text's embedding crosses the lattice: what it changes in each cell, step by step."""
    from cellular.lattice import load_lattice
    from cellular.pipeline import DirectPipelineConfig, load_config
    from cellular.teachers import load_teacher
    from pipelines.lattice_pictures import draw

    changes = {"lattice": {"checkpoint": checkpoint}} if checkpoint else {}
    changes |= {"teacher": {"name": teacher}} if teacher else {}
    config = load_config("direct_embedding_pipeline", changes)
    assert isinstance(config, DirectPipelineConfig)
    assert config.lattice is not None
    lattice = load_lattice(config.lattice.checkpoint).lattice
    (embedding,) = load_teacher(config.teacher).encode([text])
    for path in draw(lattice, embedding, text, output):
        print(path)


if __name__ == "__main__":
    run(main)
