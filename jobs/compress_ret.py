"""`cellular ret compress`: a decoder in fewer bits, or with fewer weights."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import AsJson, run, show_fields


def main(
    checkpoint: Annotated[str, typer.Argument(help="Name or folder. Default: the one shipped.")] = "",
    target: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")] = Path("compressed"),
    precision: Annotated[str, typer.Option(help="fp32, bf16, int8 or int4.")] = "int4",
    sparsity: Annotated[float, typer.Option(min=0, max=0.99, help="Share of weights set to zero.")] = 0.0,
    texts: Annotated[str | None, typer.Option(help="File or folder of texts to calibrate with;")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="or a file of embeddings;")] = None,
    bank: Annotated[Path | None, typer.Option(help="or a phrase bank.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Texts that are drawn from it.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Store a decoder in fewer bits or with most weights zero, calibrated on the CPU in a minute or two.

    One that was trained to the form, by `cellular ret train --precision int4 --sparsity .8`, is better, and
    is written without loss.
    """
    from pydantic import TypeAdapter

    from cellular.decoders.ret.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
    from cellular.decoders.ret.compression import Source, compress
    from cellular.decoders.ret.weights import BITS, Precision

    chosen: Precision = TypeAdapter(Precision).validate_python(precision)
    base = load_checkpoint(checkpoint or DEFAULT_CHECKPOINT)
    rows = Source(texts, embeddings, bank).read(base.teacher, count)
    report = compress(base, target, chosen, sparsity, rows)
    show_fields(report.model_dump(mode="json"), as_json)
    if report.needs_training:
        felt = precision if chosen in BITS else "fp32"
        options = f"--from {checkpoint or DEFAULT_CHECKPOINT} --precision {felt} --sparsity {sparsity:g}"
        print(f"better train it to this form: cellular ret train CORPUS {options}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
