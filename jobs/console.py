"""What every command shares: exit codes, one line for a mistake, tables for people, JSON for machines.

Exit codes: 0 done, 1 a bug or a failed check, 2 a mistake that its reader can mend, 130 Ctrl-C.
"""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NoReturn

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cellular.errors import CellularError

FILE_WIDTH = 200  # characters, where there is no terminal

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, one object a line")]


def run(command: typer.Typer | Callable[..., None]) -> NoReturn:
    """Run a command or an application of commands with the process' arguments, and end the process."""
    try:
        (command if isinstance(command, typer.Typer) else _application(command))()
    except CellularError as error:
        fail(str(error))
    except ValidationError as error:
        problem = error.errors()[0]
        fail(f"{'.'.join(map(str, problem['loc'])) or error.title}: {problem['msg']}")
    sys.exit(0)


def fail(message: str) -> NoReturn:
    """Say in one line on stderr what to mend, and exit with 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def end_by_signals() -> None:
    """Let SIGTERM be as Ctrl-C: what was started is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def wait_for_signals() -> NoReturn:
    """Wait until Ctrl-C or SIGTERM raises KeyboardInterrupt.

    Not by `signal.pause`: one that comes just before it, or that the system gives to another thread, would
    not wake it.
    """
    while True:
        time.sleep(0.5)


def show(rows: Sequence[Mapping[str, object]], as_json: bool = False, title: str | None = None) -> None:
    """Print rows that share their keys: one JSON object a line, or a table."""
    if as_json:
        for row in rows:
            typer.echo(orjson.dumps(row, default=str, option=orjson.OPT_SERIALIZE_NUMPY))
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        justify: Literal["left", "right"] = "right" if isinstance(rows[0][name], int | float) else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(table)


def show_fields(fields: Mapping[str, object], as_json: bool, title: str | None = None) -> None:
    """Print one object: as JSON, or as a table of a name and a value a line."""
    if as_json:
        show([fields], as_json=True)
    else:
        show([{"field": name, "value": value} for name, value in fields.items()], False, title)


def _application(command: Callable[..., None]) -> typer.Typer:
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(command)
    return application


def _cell(value: object) -> Text:
    return Text(f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value))
