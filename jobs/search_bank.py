"""`cellular bank search`: the phrases nearest to texts or embeddings."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show


def main(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to look for.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="A .npy, .arrow, .parquet or .jsonl file to look for instead.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Folder of the bank; by default the demo's.")] = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="Phrases a query.")] = 10,
    effort: Annotated[int | None, typer.Option(min=1, help="By default the bank's calibrated one.")] = None,
    exact: Annotated[bool, typer.Option(help="Compare with every phrase.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search a bank by text or by embedding: score (cosine), count, phrase and where it came from."""
    from cellular.bank import PhraseBank
    from cellular.decoders import default_bank_path
    from cellular.queries import bank_teacher, query_embeddings

    opened = PhraseBank.open(bank or default_bank_path())
    vectors = query_embeddings(opened.dimension, lambda: bank_teacher(opened), texts or [], embeddings)
    hits = opened.exact_search(vectors, k) if exact else opened.search(vectors, k, effort=effort)
    rows = [
        {
            "query": texts[number] if texts else number,
            "score": float(score),
            "count": record.count,
            "phrase": record.phrase,
            "source": f"{record.source}:{record.row}",
        }
        for number, (scores, ids) in enumerate(zip(*hits, strict=True))
        for score, record in zip(scores, opened.records(ids[ids >= 0]), strict=False)
    ]
    show(rows, as_json)


if __name__ == "__main__":
    run(main)
