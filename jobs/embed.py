"""`cellular embed`: texts to embeddings."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import run

OUTPUT = "A .npy (embeddings only), .arrow, .parquet or .jsonl file; by default JSON lines on stdout."


def main(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; by default the lines of stdin.")] = None,
    input: Annotated[str | None, typer.Option(help="A file or folder of texts, as for `bank build`.")] = None,
    text_column: Annotated[str, typer.Option(help="Column or key that holds the text.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help=OUTPUT)] = None,
    teacher: Annotated[str, typer.Option(help="A name, a folder or a hub name.")] = "all-MiniLM-L6-v2",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16x2, bf16 or int8.")] = "auto",
) -> None:
    """Embed texts that fit in memory; a corpus that does not is for `cellular bank build`."""
    from cellular.config import TeacherConfig
    from cellular.embedding_files import check_output, read_texts, write_embeddings, write_lines
    from cellular.errors import CellularError
    from cellular.teachers import load_teacher

    config = TeacherConfig.model_validate({"name": teacher, "precision": precision})
    if texts and input:
        raise CellularError("give texts or --input, not both")
    if output is not None:
        check_output(output)
    if input:
        texts = read_texts(input, text_column)
    texts = texts or [line.strip() for line in sys.stdin if line.strip()]
    vectors = load_teacher(config).encode(texts)
    if output is None:
        write_lines(sys.stdout.buffer, texts, vectors)
    else:
        write_embeddings(output, texts, vectors)
        print(f"{len(texts):,} embeddings of {vectors.shape[1]} numbers in {output}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
