"""`cellular serve`: the HTTP application on this machine, until Ctrl-C. Clusters use `serve deploy`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import end_by_signals, run, wait_for_signals


def main(
    bank: Annotated[
        list[str] | None, typer.Option(help="Folder of a bank, or NAME=FOLDER; may be repeated.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="RET's folder or name; else the packaged.")] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="A name in serve/config.yaml, such as RETDecoder; may be repeated. Else all."),
    ] = None,
    fused: Annotated[bool, typer.Option("--fused", help="Every stage in one process.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Anything but 127.0.0.1 lets other machines in.")] = "127.0.0.1",
    api_keys: Annotated[
        Path | None,
        typer.Option(help="File of `cellular api-key`: requests need one of its keys."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may call this; may be repeated. Else none.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="By default the one that made what is served.")] = None,
) -> None:
    """Serve over HTTP: /v1/embeddings, /v1/process, /v1/decode, /v1/generate; /docs describes them."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    end_by_signals()
    from serve.app import running
    from serve.settings import ServeConfig

    asked = {"banks": bank or [], "checkpoint": checkpoint, "teacher": teacher, "fused": fused}
    interface = {"api_keys": api_keys and api_keys.resolve(), "cors_origins": cors_origin or ()}
    config = ServeConfig.model_validate(asked | {"stages": stage or None, "interface": interface})
    with running(config, host, port) as url:
        typer.echo(f"serving {', '.join(config.banks) or 'without a bank'} on {url}  (Ctrl-C stops)")
        wait_for_signals()


if __name__ == "__main__":
    run(main)
