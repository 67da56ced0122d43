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
    from cellular.pipeline import NAMED

    if checkpoint is not None:
        show_fields(describe_checkpoint(checkpoint), as_json)
        return
    parts = [row for source in ([config] if config else NAMED) for row in _parts(source)]
    show(parts, as_json, title="Pipelines; teacher, bank and RET not counted")
    if config is None:
        described = map(describe_checkpoint, packaged_checkpoints())
        shown = [{name: one[name] for name in ("name", "parameters", "bytes")} for one in described]
        show(shown, as_json, title="Checkpoints of the package")


def _parts(source: Path | str) -> list[dict[str, object]]:
    """Rows of one pipeline; of the default shape, where no trained text to text comes along."""
    from cellular.cct import CCT
    from cellular.pipeline import FlexibleCellularPipeline, PipelineConfigError

    name = Path(source).stem
    try:
        counts = FlexibleCellularPipeline(source).parameters()
    except PipelineConfigError:
        if source != "text_to_text_pipeline":
            raise
        name, counts = f"{name}, untrained", CCT().count_parameters()
    return [{"pipeline": name, "part": part, "parameters": count} for part, count in counts.items()]


if __name__ == "__main__":
    run(main)
