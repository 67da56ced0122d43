"""`cellular bank info`: what a phrase bank holds."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show_fields


def main(
    bank: Annotated[Path | None, typer.Argument(help="Folder of the bank; by default the demo's.")] = None,
    version: Annotated[str | None, typer.Option(help="By default the current one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a bank's teacher, size, index and versions."""
    from cellular.bank import PhraseBank
    from cellular.bank.manifest import versions
    from cellular.decoders import default_bank_path

    opened = PhraseBank.open(bank or default_bank_path(), version=version)
    manifest = opened.manifest
    fields = {
        "path": str(opened.path),
        "version": opened.version,
        "versions": versions(opened.path),
        "phrases": manifest.phrases,
        "occurrences": manifest.occurrences,
        "teacher": manifest.teacher.fingerprint,
        "dimension": manifest.dimension,
        "embedding_dtype": manifest.embedding_dtype,
        "index": manifest.index.factory,
        "effort": manifest.index.effort,
        "recall_at_10": manifest.index.recall,
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "created": manifest.created.isoformat(),
        "warning": manifest.index.warning,
    }
    show_fields(fields, as_json)


if __name__ == "__main__":
    run(main)
