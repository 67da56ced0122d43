"""`cellular decode`: embeddings back to text."""

from pathlib import Path
from typing import Annotated

import typer

from cellular.config import RETPrecision
from jobs.console import AsJson, run, show

DECODER = "phrase_bank, ret or hybrid. By default phrase_bank where a bank is given, else ret."
LATTICE = (
    "Send the embeddings through this lattice first: a name or a folder. "
    "lattice-denoise-all-MiniLM-L6-v2 mends damaged ones."
)
PRECISION = "What RET computes in. int8: up to 6 times as fast with VNNI, one BLEU less. Default: fp32."
METHOD = (
    "Of phrase_bank: greedy, weighted, beam_search, context_aware (default). "
    "Of ret: greedy (default), beam, sample."
)


def main(
    embeddings: Annotated[
        Path | None, typer.Argument(help="A .npy, .arrow, .parquet or .jsonl file of embeddings.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Embed this text first; may be repeated.")] = None,
    lattice: Annotated[str | None, typer.Option(help=LATTICE)] = None,
    decoder: Annotated[str | None, typer.Option(help=DECODER)] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Folder of the bank; by default the demo's. Unused by ret.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="RET's weights, a name or a folder; by default those that come along.")
    ] = None,
    precision: Annotated[RETPrecision | None, typer.Option(help=PRECISION)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD)] = None,
    effort: Annotated[
        str | None,
        typer.Option(help="Of hybrid: none (no teacher), low (9 texts embedded), medium (33), high (129)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what ret and hybrid draw.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Decode embeddings: the text, its score (cosine, where the decoder knows it) and where it came from."""
    from cellular.decoders.opening import DecodeOptions, open_decoder
    from cellular.queries import open_lattice, query_embeddings

    opened = open_decoder(
        decoder or ("phrase_bank" if bank else "ret"),
        DecodeOptions(bank, checkpoint, precision, method, effort, seed),
    )
    rows = query_embeddings(opened.dimension, opened.teacher, text or [], embeddings)
    if lattice:
        rows = open_lattice(lattice, opened.fingerprint)(rows)
    answers = [
        {"input": text[number] if text else number, **answer._asdict()}
        for number, answer in enumerate(opened.answer(rows))
    ]
    show(answers, as_json)


if __name__ == "__main__":
    run(main)
