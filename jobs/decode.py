"""`cellular decode`: embeddings back to text."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show


def main(
    embeddings: Annotated[
        Path | None, typer.Argument(help="A .npy, .arrow, .parquet or .jsonl file of embeddings.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Embed this text first; may be repeated.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Folder of the bank; by default the demo's.")] = None,
    method: Annotated[
        str, typer.Option(help="greedy, weighted, beam_search or context_aware.")
    ] = "context_aware",
    as_json: AsJson = False,
) -> None:
    """Decode embeddings: the text, its score (cosine) and where it came from."""
    from cellular.bank import PhraseBank
    from cellular.config import DecodingConfig
    from cellular.decoders import PhraseBankDecoder, default_bank_path
    from cellular.queries import query_embeddings

    decoder = PhraseBankDecoder(DecodingConfig.model_validate({"assembly_method": method}))
    opened = PhraseBank.open(bank or default_bank_path())
    decoder.load_phrase_bank(opened)
    results = decoder.decode_batch(query_embeddings(opened, text or [], embeddings))
    rows = [
        {
            "input": text[number] if text else number,
            "text": result.text,
            "score": float(result.score),
            "source": result.source,
            "reason": result.reason,
        }
        for number, result in enumerate(results)
    ]
    show(rows, as_json)


if __name__ == "__main__":
    run(main)
