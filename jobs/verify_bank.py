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
    """Check every file of a bank, and compare its search with exact search; exits with 1 if it is damaged."""
    from cellular.bank import verify_bank
    from cellular.decoders import default_bank_path
    from cellular.errors import CellularError

    report = verify_bank(bank or default_bank_path(), sample)
    if report.version is None:
        raise CellularError("; ".join(report.problems))
    fields = report.model_dump(mode="json")
    show_fields(fields if as_json else fields | {"problems": "; ".join(report.problems)}, as_json)
    raise typer.Exit(int(not report.ok))


if __name__ == "__main__":
    run(main)
