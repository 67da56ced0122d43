"""`cellular bank append`: a new corpus into an existing phrase bank, as its next version."""

from pathlib import Path
from typing import Annotated

import typer

from jobs import build_options as options
from jobs.console import AsJson, run


def main(
    bank: Annotated[Path, typer.Argument(help="Folder of the bank.")],
    inputs: Annotated[list[str], typer.Argument(help="Files, folders or globs; local paths or s3://.")],
    text_column: options.TextColumn = None,
    format: options.Format = None,
    text_records: options.TextRecords = None,
    teacher: options.Teacher = None,
    precision: options.Precision = None,
    embedders: options.Embedders = None,
    embedder_gpus: options.EmbedderGpus = None,
    tasks: options.Tasks = None,
    shard_rows: options.ShardRows = None,
    restart: options.Restart = False,
    as_json: AsJson = False,
) -> None:
    """Add a corpus to a bank, by the bank's own rules. Who has the old version open goes on reading it.

    Phrases that the bank has keep their embeddings and their first source; their counts grow. Phrases that
    were once left out for being rare are not known any more. Interrupted, it goes on when run again.
    """
    from pipelines.plan import base_version

    _, current = base_version(bank)
    settings = {
        "corpus": options.corpus_settings(inputs, text_column, format, text_records),
        "target": bank,
        "append": True,
        "rules": current.rules,
        "teacher": {"name": teacher or current.teacher.name, "precision": precision},
        "embedding_dtype": current.embedding_dtype,
        "shard_rows": shard_rows,
        "resources": {"embedders": embedders, "embedder_gpus": embedder_gpus, "tasks": tasks},
    }
    options.build(settings, None, restart=restart, as_json=as_json)


if __name__ == "__main__":
    run(main)
