"""`cellular serve`: the HTTP application on this machine, until Ctrl-C. Clusters use `serve deploy`."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import run


def main(
    bank: Annotated[Path, typer.Option(help="Folder of the bank.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Anything but 127.0.0.1 lets other machines in.")] = "127.0.0.1",
    teacher: Annotated[str | None, typer.Option(help="By default the one that made the bank.")] = None,
    version: Annotated[str | None, typer.Option(help="By default the bank's current one.")] = None,
) -> None:
    """Serve a phrase bank over HTTP: /v1/embeddings, /v1/decode, /healthz."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is stopped
    from serve.app import running
    from serve.settings import ServeConfig

    config = ServeConfig.model_validate({"bank": bank, "teacher": teacher, "version": version})
    with running(config, host, port) as url:
        typer.echo(f"serving {bank} on {url}  (Ctrl-C stops)")
        signal.pause()


if __name__ == "__main__":
    run(main)
