"""`cellular generate`: text to text by a whole pipeline."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.console import AsJson, run, show

CONFIG = "A YAML file over a named pipeline, instead of --mode."
BANK = "Folder of a bank whose phrases answer. By default RET does, which needs none."


def main(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; by default the lines of stdin.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="direct (default), text_to_text or hybrid.", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(help=CONFIG)] = None,
    bank: Annotated[Path | None, typer.Option(help=BANK)] = None,
    decoder: Annotated[str | None, typer.Option(help="phrase_bank, ret or hybrid.")] = None,
    lattice: Annotated[
        str | None, typer.Option(help="A packaged lattice's name, or a folder. By default the mode's.")
    ] = None,
    dialogue: Annotated[
        bool, typer.Option("--dialogue", help="The texts are turns, oldest first: print what may follow.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pass texts through a pipeline: a line each, or with --json their score and source as well."""
    from cellular.errors import CellularError
    from cellular.pipeline import FlexibleCellularPipeline, load_config

    if mode and config:
        raise CellularError("give --mode or --config, not both: the file says its mode")
    texts = texts or [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        raise CellularError("give texts, as arguments or as lines on stdin")
    changes = {
        "lattice": _given({"checkpoint": lattice}),
        "decoder": _given({"bank": bank, "name": decoder}),
    }
    pipeline = FlexibleCellularPipeline(load_config(config or {"mode": mode or "direct"}, _given(changes)))
    if dialogue:
        rows = [{"input": texts[-1], "text": pipeline.reply(texts)}]
    else:
        answers = pipeline.answer(texts)
        rows = [{"input": text, **one._asdict()} for text, one in zip(texts, answers, strict=True)]
    if as_json:
        show(rows, as_json)
        return
    for row in rows:
        print(row["text"])


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in options.items() if value}


if __name__ == "__main__":
    run(main)
