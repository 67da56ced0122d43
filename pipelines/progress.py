"""What a person sees of a running stage: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, track

Row = dict[str, Any]
Item = TypeVar("Item")
LINE_SECONDS = 5.0


class Track(Protocol):
    """Shows the rows of a stage as they pass."""

    def __call__(
        self, rows: Iterable[Row], stage: str, total: int, done: int, unit: str = "phrases"
    ) -> Iterator[Row]:
        """Pass `rows` on, each with its count of `unit`; `done` of `total` items were done before."""


def show(rows: Iterable[Row], stage: str, total: int, done: int, unit: str = "phrases") -> Iterator[Row]:
    """Track on stderr: a bar where it is a terminal, else plain lines."""
    return (_bar if sys.stderr.isatty() else _lines)(rows, stage, total, done, unit)


def silent(rows: Iterable[Row], stage: str, total: int, done: int, unit: str = "phrases") -> Iterator[Row]:
    """Track nothing."""
    return iter(rows)


def bar(items: Sequence[Item], label: str) -> Iterable[Item]:
    """Pass items on under a bar on stderr that goes when they end; a line where it is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(label, file=sys.stderr, flush=True)  # noqa: T201
    return track(items, label, console=console, transient=True, disable=not console.is_terminal)


def _bar(rows: Iterable[Row], stage: str, total: int, done: int, unit: str) -> Iterator[Row]:
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[count]:,}} {unit}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(stage, total=total, completed=done, count=0)
        count = 0
        for row in rows:
            count += int(row[unit])
            progress.update(task, advance=1, count=count)
            yield row


def _lines(rows: Iterable[Row], stage: str, total: int, done: int, unit: str) -> Iterator[Row]:
    count, due = 0, time.monotonic() + LINE_SECONDS
    for done, row in enumerate(rows, start=done + 1):  # noqa: B020 - the count goes on where it was
        count += int(row[unit])
        if time.monotonic() >= due or done == total:
            print(f"{stage}: {done} of {total}, {count:,} {unit}", file=sys.stderr, flush=True)  # noqa: T201
            due = time.monotonic() + LINE_SECONDS
        yield row
