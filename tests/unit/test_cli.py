"""The command line as a person and a shell meet it: help, exit codes, output that parses."""

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import typer
from typer.testing import CliRunner

from cellular.bank import create_bank
from cellular.config import TeacherConfig
from cellular.errors import CellularError
from cellular.teachers import HashTeacher, load_teacher
from jobs import cli, console
from pipelines.mapping_data import damaged

JOBS = Path(cli.__file__).parent
COMMANDS = sorted(
    path.stem for path in JOBS.glob("*.py") if "\ndef main(" in path.read_text("utf-8") and path.stem != "cli"
)
HEAVY = ("torch", "ray", "faiss", "openvino", "pandas", "pyarrow", "fastapi", "sklearn")
PHRASES = ["The cat sat on the mat.", "A dog barked all night.", "Rain is falling on the roof."]


def registered(application: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(words of the command, module of its function) for every command."""
    for command in application.registered_commands:
        assert command.callback and command.name
        yield (*path, command.name), command.callback.__module__
    for group in application.registered_groups:
        assert group.typer_instance and group.name
        yield from registered(group.typer_instance, (*path, group.name))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cellular", *words])
    with pytest.raises(SystemExit) as exit:
        console.run(cli.app)
    assert isinstance(exit.value.code, int)
    return exit.value.code


@pytest.fixture
def bank(tmp_path: Path) -> str:
    create_bank(tmp_path / "bank", PHRASES, HashTeacher())
    return str(tmp_path / "bank")


def test_every_job_file_is_a_command_of_the_line() -> None:
    assert sorted(module.removeprefix("jobs.") for _, module in registered(cli.app)) == COMMANDS


@pytest.mark.parametrize("words", [words for words, _ in registered(cli.app)], ids=" ".join)
def test_help_of_a_command_lists_its_options(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    command = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    shown = result.output.lower()
    assert [name for option in command.params for name in option.opts if name.lower() not in shown] == []


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_a_job_file_runs_as_a_module(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module(f"jobs.{name}", run_name="__main__")
    assert exit.value.code == 0
    assert "Usage:" in capsys.readouterr().out


def test_the_line_itself_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "jobs.cli", "--help"]
    assert "Usage:" in subprocess.check_output(command, cwd=JOBS.parent, text=True)


def test_help_loads_nothing_heavy() -> None:
    script = f"import sys, jobs.cli; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], cwd=JOBS.parent, text=True) == "[]\n"


@pytest.mark.parametrize(
    "words",
    [
        ("bank", "build", "/missing/corpus", "--target", "{tmp}/bank", "--teacher", "hash"),
        ("bank", "append", "/missing/bank", "/missing/corpus"),
        ("bank", "info", "/missing/bank"),
        ("bank", "search", "text", "--bank", "/missing/bank"),
        ("bank", "verify", "/missing/bank"),
        ("decode", "--text", "text", "--bank", "/missing/bank"),
        ("decode", "--text", "text", "--method", "psychic"),
        ("decode", "--text", "text", "--lattice", "psychic"),
        ("embed", "text", "--teacher", "/missing/teacher"),
        ("embed", "--input", "/missing/corpus", "--teacher", "hash"),
        ("embed", "text", "--teacher", "hash", "--output", "{tmp}/vectors.txt"),
        ("embed", "text", "--teacher", "hash", "--output", "/missing/folder/vectors.npy"),
        ("evaluate", "--data", "/missing/data"),
        ("evaluate", "--decoder", "psychic"),
        ("serve", "--bank", "/missing/bank"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *(word.format(tmp=tmp_path) for word in words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_training_of_no_steps_is_refused_where_the_default_has_a_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("adapter", "train", "corpus.txt", "--target", str(tmp_path / "adapter"), "--steps", "0")
    assert run(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith("error: schedule.steps: ")


@pytest.mark.parametrize("trained", ["ret", "lattice", "adapter", "text-to-text"])
def test_a_training_on_what_is_not_there_makes_no_folder_and_starts_no_cluster(
    trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "run"
    assert run(monkeypatch, trained, "train", "/missing/corpus", "--target", str(target), "--steps", "5") == 2
    assert "/missing/corpus" in capsys.readouterr().err
    assert not target.exists() and not ray.is_initialized()


@pytest.mark.parametrize(
    ("raised", "code"), [(CellularError("mend it"), 2), (KeyboardInterrupt(), 130), (typer.Exit(1), 1)]
)
def test_exit_codes(raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise raised

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as exit:
        console.run(command)
    assert exit.value.code == code


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        console.run(lambda: divmod(1, 0))


def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as exit:
        console.run(lambda: TeacherConfig.model_validate({"precision": "fp7"}))
    assert exit.value.code == 2
    assert "precision" in capsys.readouterr().err


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("cellular ")


def test_embed_search_decode(
    bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = str(tmp_path / "vectors.parquet")
    assert run(monkeypatch, "embed", *PHRASES, "--teacher", "hash", "--output", vectors) == 0
    capsys.readouterr()

    assert (
        run(monkeypatch, "bank", "search", "--embeddings", vectors, "--bank", bank, "--top", "1", "--json")
        == 0
    )
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [hit["phrase"] for hit in hits] == PHRASES
    assert all(hit["score"] == pytest.approx(1, abs=1e-3) for hit in hits)

    assert run(monkeypatch, "decode", "--text", PHRASES[1], "--bank", bank, "--json") == 0
    decoded = json.loads(capsys.readouterr().out)
    assert (decoded["text"], decoded["source"]) == (PHRASES[1], "bank")


def test_a_lattice_mends_damaged_embeddings_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["Two dogs run along the beach.", "I would like to book a table.", "He has never seen the sea."]
    teacher = load_teacher("all-MiniLM-L6-v2")
    whole = teacher.encode(texts)
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, damaged("2 bits", whole).sources)
    mending = ["--lattice", "lattice-denoise-all-MiniLM-L6-v2"]

    def cosine(*options: str) -> float:
        assert run(monkeypatch, "decode", str(vectors), "--json", *options) == 0
        answers = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
        return float((teacher.encode(answers) * whole).sum(1).mean())

    assert cosine(*mending) > cosine() + 0.1


def test_verify_tells_a_damaged_bank(
    bank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "bank", "verify", bank) == 0
    (phrases,) = Path(bank).glob("versions/*/phrases.arrow")
    phrases.write_bytes(phrases.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert run(monkeypatch, "bank", "verify", bank, "--json") == 1
    assert "phrases.arrow" in json.loads(capsys.readouterr().out)["problems"][0]


def test_tables_show_every_value(
    bank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "bank", "info", bank) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("phrases", "hash:", "v000001"))


def test_embed_reads_stdin_and_writes_lines() -> None:
    words = [sys.executable, "-m", "jobs.embed", "--teacher", "hash"]
    out = subprocess.run(
        words, input="one\n\ntwo\n", text=True, capture_output=True, check=True, cwd=JOBS.parent
    )
    rows = [json.loads(line) for line in out.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["one", "two"]
    assert np.linalg.norm([row["embedding"] for row in rows], axis=1) == pytest.approx([1, 1])


def test_a_closed_pipe_is_quiet() -> None:
    script = f"{sys.executable} -m jobs.embed --teacher hash $(seq 500) | head -c 1"
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, cwd=JOBS.parent, env=os.environ, check=True
    )
    assert result.stderr == b""


def test_an_interrupt_that_another_thread_gets_ends_the_waiting() -> None:
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    other = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            other.start()
            console.wait_for_signals()
    finally:
        other.join()
        signal.signal(signal.SIGINT, kept)
