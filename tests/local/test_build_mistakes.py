"""The real command, in a process of its own: one line, exit code 2, nothing built."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cellular.config import BuildConfig, CorpusConfig, TeacherConfig
from pipelines.workspace import locked

Start = Callable[..., subprocess.Popen[str]]
HASH = TeacherConfig(name="hash")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "An owl sleeps."}\n')
    return path


def configure(target: Path, corpus: Path, **settings: str) -> BuildConfig:
    return BuildConfig(
        corpus=CorpusConfig(inputs=(str(corpus),), **settings),
        target=target,
        teacher=HASH,  # type: ignore[arg-type]
    )


def assert_refused(process: subprocess.Popen[str], *words: str) -> None:
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error


def test_missing_column(tmp_path: Path, corpus: Path, start_build: Start) -> None:
    assert_refused(start_build(configure(tmp_path / "bank", corpus, text_column="body")), "body", str(corpus))
    assert not (tmp_path / "bank" / "versions").exists()


def test_empty_corpus(tmp_path: Path, start_build: Start) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert_refused(start_build(configure(tmp_path / "bank", empty)), "empty", str(empty))


def test_wrong_path(tmp_path: Path, start_build: Start) -> None:
    assert_refused(start_build(configure(tmp_path / "bank", tmp_path / "nowhere")), "nowhere")


def test_unwritable_target(tmp_path: Path, corpus: Path, start_build: Start) -> None:
    (tmp_path / "file").touch()
    settings = tmp_path / "settings"
    settings.mkdir()
    process = start_build(configure(settings / "bank", corpus), "--target", str(tmp_path / "file" / "bank"))
    assert_refused(process, "cannot write", str(tmp_path / "file"))


def test_a_second_build_to_one_target_refuses(tmp_path: Path, corpus: Path, start_build: Start) -> None:
    with locked(tmp_path / "bank"):
        assert_refused(start_build(configure(tmp_path / "bank", corpus)), "another build", "bank")


def test_a_cluster_that_does_not_answer(tmp_path: Path, corpus: Path, start_build: Start) -> None:
    """At once, and with its address: Ray alone would try for minutes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens
        address = f"127.0.0.1:{held.getsockname()[1]}"
        assert_refused(start_build(configure(tmp_path / "bank", corpus), address=address), address)


def test_unknown_setting(tmp_path: Path, corpus: Path, start_build: Start) -> None:
    config = configure(tmp_path / "bank", corpus)
    assert_refused(start_build(config, "--dtype", "float8"), "embedding_dtype")
