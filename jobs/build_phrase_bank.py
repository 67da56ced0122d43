"""`cellular bank build`: from a corpus to a phrase bank."""

from typing import Annotated, Any

import typer

from jobs import build_options as options
from jobs.console import AsJson, run


def main(
    inputs: options.Inputs = None,
    target: options.Target = None,
    text_column: options.TextColumn = None,
    format: options.Format = None,
    text_records: options.TextRecords = None,
    language: Annotated[
        str | None, typer.Option(help="ISO 639 code of the sentence rules. Default: en.")
    ] = None,
    units: Annotated[
        list[str] | None, typer.Option(help="sentence, clause or ngram; may be repeated. Default: sentence.")
    ] = None,
    ngram_words: Annotated[
        tuple[int, int] | None, typer.Option(help="Shortest and longest n-gram. Default: 3 6.")
    ] = None,
    min_characters: Annotated[
        int | None, typer.Option(help="Shorter phrases are dropped. Default: 3.")
    ] = None,
    max_characters: Annotated[
        int | None, typer.Option(help="Longer phrases are dropped. Default: 300.")
    ] = None,
    min_count: Annotated[int | None, typer.Option(help="Rarer phrases are dropped. Default: 1.")] = None,
    teacher: options.Teacher = None,
    precision: options.Precision = None,
    dtype: Annotated[str | None, typer.Option(help="float16 or float32. Default: float16.")] = None,
    index: Annotated[str | None, typer.Option(help="FAISS factory string. Default: auto.")] = None,
    recall: Annotated[
        float | None, typer.Option(help="recall@10 of the default search. Default: 0.98.")
    ] = None,
    embedders: options.Embedders = None,
    embedder_gpus: options.EmbedderGpus = None,
    tasks: options.Tasks = None,
    shard_rows: options.ShardRows = None,
    config: options.ConfigFile = None,
    restart: options.Restart = False,
    as_json: AsJson = False,
) -> None:
    """Build a phrase bank from text; interrupted, it goes on when the same command is run again.

    Runs on the cluster that RAY_ADDRESS names, or on this machine.
    """
    settings: dict[str, Any] = {
        "corpus": options.corpus_settings(inputs, text_column, format, text_records),
        "target": target,
        "rules": {
            "language": language,
            "units": units or None,
            "ngram_words": ngram_words,
            "min_characters": min_characters,
            "max_characters": max_characters,
            "min_count": min_count,
        },
        "teacher": {"name": teacher, "precision": precision},
        "embedding_dtype": dtype,
        "index": {"factory": index, "recall_target": recall},
        "shard_rows": shard_rows,
        "resources": {"embedders": embedders, "embedder_gpus": embedder_gpus, "tasks": tasks},
    }
    options.build(settings, config, restart=restart, as_json=as_json)


if __name__ == "__main__":
    run(main)
