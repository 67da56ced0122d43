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
    as_json: AsJson = False,
) -> None:
    """Pass texts through a pipeline: a line each, or with --json their score and source as well."""
    from cellular.errors import CellularError
    from cellular.pipeline import FlexibleCellularPipeline, load_config

    if mode and config:
        raise CellularError("give --mode or --config, not both: the file says its mode")
    settings = {name: value for name, value in {"bank": bank, "name": decoder}.items() if value is not None}
    changes: dict[str, Any] = {"decoder": settings} if settings else {}
    pipeline = FlexibleCellularPipeline(load_config(config or {"mode": mode or "direct"}, changes))
    texts = texts or [line.strip() for line in sys.stdin if line.strip()]
    answers = pipeline.answer(texts)
    if as_json:
        show([{"input": text, **one._asdict()} for text, one in zip(texts, answers, strict=True)], as_json)
        return
    for answer in answers:
        print(answer.text)


if __name__ == "__main__":
    run(main)
