"""`cellular adapter fit-lsa`: a teacher of one's own texts that needs no neural network."""

import random
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show_fields
from jobs.origin import command_line, commit
from jobs.training_options import CommitName


def main(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders or globs; local paths or s3://.")],
    target: Annotated[Path, typer.Option(help="Folder of the teacher.")] = Path("lsa"),
    text_column: Annotated[str, typer.Option(help="Column or key that holds the text.")] = "text",
    dimension: Annotated[int, typer.Option(min=1, help="Of its embeddings.")] = 768,
    words: Annotated[int, typer.Option(min=1, help="Most frequent words that it knows.")] = 6_700,
    parts: Annotated[int, typer.Option(min=0, help="Most frequent parts of words.")] = 3_300,
    sample: Annotated[int, typer.Option(min=1, help="Texts it is fitted on, drawn at random.")] = 200_000,
    max_characters: Annotated[int, typer.Option(min=1, help="Longer texts are left out.")] = 160,
    seed: Annotated[int, typer.Option(help="Of the draw and of the decomposition.")] = 0,
    commit_name: CommitName = None,
    as_json: AsJson = False,
) -> None:
    """Fit TF-IDF and an SVD on texts that fit in memory; use it as the teacher lsa:TARGET."""
    from pydantic import JsonValue

    from cellular.embedding_files import read_texts
    from cellular.lsa import LSAConfig, LSATeacher, lsa_card

    texts = sorted({text for path in inputs for text in read_texts(path, text_column)})
    texts = [text for text in texts if len(text) <= max_characters]
    drawn = random.Random(seed).sample(texts, min(sample, len(texts)))
    print(f"fitting on {len(drawn):,} of {len(texts):,} texts", file=sys.stderr)
    config = LSAConfig(dimension=dimension, words=words, parts=parts)
    teacher = LSATeacher.fit(drawn, config, seed)
    origin: dict[str, JsonValue] = {
        "texts": len(drawn),
        "command": command_line("adapter fit-lsa"),
        "commit": commit_name or commit(),
    }
    teacher.save(target, lsa_card(teacher, origin), origin)
    show_fields({"path": str(target), "fingerprint": teacher.fingerprint, **origin}, as_json)


if __name__ == "__main__":
    run(main)
