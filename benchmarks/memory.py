"""What a benchmark's process takes of the memory."""

from pathlib import Path


def peak_mib() -> float:
    """The most memory that this process has held; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
