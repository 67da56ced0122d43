"""`cellular doctor`: what is installed, which teachers load, whether a cluster answers."""

import typer
from rich.console import Console
from rich.text import Text

from jobs.console import AsJson, run, show

STYLES = {"ok": "green", "problem": "bold red"}


def main(as_json: AsJson = False) -> None:
    """Look at this machine and the cluster; exits with 1 where something is broken, and says what to do."""
    from pipelines import diagnose_machine

    console = Console()
    broken = False
    for finding in diagnose_machine.run():
        broken |= finding.status == "problem"
        if as_json:
            show([finding._asdict()], as_json=True)
            continue
        console.print(Text(f"{finding.status:<8}", STYLES[finding.status]), finding.subject, sep="", end=": ")
        console.print(finding.detail, markup=False, highlight=False)
        if finding.remedy:
            console.print(f"        to do: {finding.remedy}", markup=False, highlight=False)
    raise typer.Exit(int(broken))


if __name__ == "__main__":
    run(main)
