"""`cellular api-key`: a key for the HTTP application."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import run


def main(
    file: Annotated[Path, typer.Argument(help="File of the hashes; made if it is not there.")],
    name: Annotated[str, typer.Option(help="Whose key it is, for those who read the file.")] = "unnamed",
) -> None:
    """Make an API key: its hash goes to the end of a file, itself to stdout, once.

    An application that serves with this file admits the key at once. Remove its line to revoke it.
    """
    from cellular.errors import CellularError
    from serve.auth import key_line, new_key

    key = new_key()
    line = key_line(key, " ".join(name.split()))
    try:
        file.touch(mode=0o600)
        with file.open("a", encoding="utf-8") as keys:
            keys.write(line)
    except OSError as error:
        raise CellularError(f"cannot write {file}: {error.strerror}") from error
    print(f"{file} admits this key, which is shown only now:", file=sys.stderr)
    print(key)


if __name__ == "__main__":
    run(main)
