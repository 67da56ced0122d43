"""`cellular bank verify`: checksums, counts and measured recall of a phrase bank."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show_fields


def main(
    bank: Annotated[Path | None, typer.Argument(help="Folder of the bank; by default the demo's.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Phrases whose neighbours are compared.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Check every file of a bank, and compare its search with exact search on a sample."""
    from cellular.bank import verify_bank
    from cellular.decoders import default_bank_path

    report = verify_bank(bank or default_bank_path(), sample)
    show_fields(report.model_dump(), as_json)


if __name__ == "__main__":
    run(main)
