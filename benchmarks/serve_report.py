"""results/serve.md: each benchmark of the application writes its own sections, and leaves the others."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

REPORT = Path(__file__).parent / "results" / "serve.md"
PICTURES = Path(__file__).parents[1] / "docs"
HEAD = [
    "# The HTTP application",
    "",
    "Everything runs on one machine, the load included, and over loopback. What is compared takes turns",
    "within a run; of several rounds the median. Where no number of replicas is named, each stage has one.",
    "",
    "- `process`: one FastAPI + uvicorn process with the same workers; `gathered`: with the Gateway, which",
    "  joins requests",
    "- `graph`: the application; `fused`: its stages in one deployment; `scaled`: two replicas a stage",
    "- `noop`: a deployment that answers at once; `chain`: each request calls two deployments by handles",
    "- all at the same niceness (Ray gives its workers 15)",
    "- `+throughput`: RAY_SERVE_THROUGHPUT_OPTIMIZED=1; `+haproxy`: RAY_SERVE_ENABLE_HA_PROXY=1 besides",
    "",
]


def record(title: str, command: str, lines: Sequence[str]) -> None:
    """Replace a section, or add it at the end.

    Args:
        title: of the section.
        command: what makes it again.
        lines: its text.
    """
    text = REPORT.read_text("utf-8") if REPORT.exists() else ""
    _, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    heading = f"## {title}\n"
    busy = f"load average of the quarter of an hour before {os.getloadavg()[2]:.0f}"
    made = f"{date.today()}, {machine()}, {busy}; `python -m {command}`."
    new = "\n".join([heading, made, "", *lines, ""])
    place = next((n for n, section in enumerate(sections) if section.startswith(heading)), len(sections))
    sections[place : place + 1] = [new]
    parts = ["\n".join(HEAD), *sections]
    REPORT.write_text("\n".join(part.rstrip("\n") + "\n" for part in parts), "utf-8")


def machine() -> str:
    """Cores and their model."""
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores of {model or platform.machine()}"
