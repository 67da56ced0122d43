"""The demonstration from gathering to HTTP, at a small scale and with the teacher that needs no model."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellular.bank import PhraseBank
from pipelines.demo import HELD_OUT
from pipelines.demo_corpus import gather

ROOT = Path(__file__).parents[2]
PHRASES = 300
COMMAND = [sys.executable, "-m", "jobs.demo", "--phrases", str(PHRASES), "--teacher", "hash", "--rows", "5"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def demo(home: Path, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {"CELLULAR_HOME": str(home), "RAY_AUTH_MODE": "disabled", "COLUMNS": "120"}
    environment.pop("RAY_ADDRESS", None)
    with subprocess.Popen(
        [*COMMAND, *getattr(request, "param", [])],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def said_until(end: str, demo: "subprocess.Popen[str]") -> str:
    """What it said on stderr, up to the line that holds `end`."""
    assert demo.stderr
    said = ""
    for line in demo.stderr:
        said += line
        if end in line:
            return said
    pytest.fail(f"it ended before: {said}")


def started_by(home: Path) -> list[str]:
    """Command lines of the living processes that were started with this home."""
    mark = f"CELLULAR_HOME={home}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def assert_nothing_runs(home: Path) -> None:
    deadline = time.monotonic() + 20
    while (left := started_by(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.mark.parametrize("demo", [["--serve"]], indirect=True)
def test_demo_prints_the_same_answers_from_the_process_and_over_http_and_stays_up_until_ctrl_c(
    demo: "subprocess.Popen[str]", home: Path
) -> None:
    said = said_until("the application stays up", demo)
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=100)
    assert demo.returncode == 130
    assert "ms by HTTP" in out
    assert "5 of 5 answers are the same over HTTP" in said
    assert_nothing_runs(home)
    bank = PhraseBank.open(home / "banks" / "demo")
    assert len(bank) >= PHRASES
    assert set(bank.phrases(range(len(bank)))).isdisjoint(gather(PHRASES, HELD_OUT)[1])


def test_a_demo_ended_by_ctrl_c_while_the_application_starts_leaves_nothing_running(
    demo: "subprocess.Popen[str]", home: Path
) -> None:
    said_until("starting the HTTP application", demo)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=100)
    assert demo.returncode == 130
    assert_nothing_runs(home)
