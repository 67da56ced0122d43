"""`cellular serve`: the HTTP application on this machine, until Ctrl-C. Clusters use `serve deploy`."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import run


def main(
    bank: Annotated[Path | None, typer.Option(help="Folder of a bank. Without one, RET alone.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="RET's folder or name; else the packaged.")] = None,
    decoder: Annotated[
        list[str] | None, typer.Option(help="phrase_bank, ret or hybrid; may be repeated. Else all.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Anything but 127.0.0.1 lets other machines in.")] = "127.0.0.1",
    teacher: Annotated[str | None, typer.Option(help="By default the one that made what is served.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the bank; by default its current one.")] = None,
) -> None:
    """Serve decoders over HTTP: /v1/embeddings, /v1/decode, /v1/models, /healthz."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is stopped
    from serve.app import running
    from serve.settings import ServeConfig

    asked = {"bank": bank, "checkpoint": checkpoint, "teacher": teacher, "version": version}
    config = ServeConfig.model_validate(asked | {"decoders": decoder or None})
    with running(config, host, port) as url:
        typer.echo(f"serving {bank or 'RET'} on {url}  (Ctrl-C stops)")
        signal.pause()


if __name__ == "__main__":
    run(main)
