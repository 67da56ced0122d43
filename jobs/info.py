"""`cellular info`: the pipelines' parameters, and what a checkpoint is."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show, show_fields


def main(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A packaged checkpoint's name, or a folder, to be described.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A pipeline's YAML file, instead of the three named ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the parameters of every pipeline by part, and the checkpoints that come along.

    Those of the teacher, the bank and RET are not counted: they serve other pipelines as they are.
    """
    from cellular.checkpoint_files import describe_checkpoint, packaged_checkpoints
    from cellular.pipeline import NAMED, FlexibleCellularPipeline

    if checkpoint is not None:
        show_fields(describe_checkpoint(checkpoint), as_json)
        return
    parts = [
        {"pipeline": Path(source).stem, "part": part, "parameters": count}
        for source in ([config] if config else NAMED)
        for part, count in FlexibleCellularPipeline(source).parameters().items()
    ]
    show(parts, as_json, title="Pipelines; teacher, bank and RET not counted")
    if config is None:
        described = map(describe_checkpoint, packaged_checkpoints())
        shown = [{name: one[name] for name in ("name", "parameters", "bytes")} for one in described]
        show(shown, as_json, title="Checkpoints of the package")


if __name__ == "__main__":
    run(main)
