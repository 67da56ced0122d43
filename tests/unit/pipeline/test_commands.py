"""`cellular generate`, `info` and `lattice show`, on small pieces."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cellular import FlexibleCellularPipeline, load_config
from cellular.checkpoint_files import packaged_checkpoints
from cellular.lattice import count_parameters, load_lattice
from cellular.teachers import HashTeacher
from jobs import cli, console
from pipelines.contenders import CountingTeacher, Parts, make_contender

Settings = dict[str, Any]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["cellular", *map(str, words)])
    with pytest.raises(SystemExit) as exit:
        console.run(cli.app)
    assert isinstance(exit.value.code, int)
    return exit.value.code


@pytest.fixture
def config(direct: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(direct, default=str))))
    return path


def test_generate_prints_what_the_pipeline_says(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a dog", "rain falls"]
    expected = FlexibleCellularPipeline(config).generate(texts)
    assert run(monkeypatch, "generate", *texts, "--config", config, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == expected
    assert [(row["input"], row["source"]) for row in rows] == [(text, "ret") for text in texts]

    monkeypatch.setattr(sys, "stdin", io.StringIO("a dog\n\nrain falls\n"))
    assert run(monkeypatch, "generate", "--config", config) == 0
    assert capsys.readouterr().out == "\n".join([*expected, ""])


def test_generate_answers_from_a_bank(
    config: Path,
    phrases_bank: Path,
    phrases: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "generate", "a cat", "--config", config, "--bank", phrases_bank, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["source"] == "bank"
    assert any(phrase in row["text"] for phrase in phrases)


def test_generate_goes_on_with_a_dialogue(
    config: Path, dialogue_lattice: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("generate", "a dog", "rain falls", "--dialogue", "--config", config, "--json")
    assert run(monkeypatch, *words, "--lattice", dialogue_lattice) == 0
    row = json.loads(capsys.readouterr().out)
    pipeline = FlexibleCellularPipeline(load_config(config, {"lattice": {"checkpoint": dialogue_lattice}}))
    assert row == {"input": "rain falls", "text": pipeline.reply(["a dog", "rain falls"])}
    assert run(monkeypatch, *words) == 2
    assert "knows no earlier turns" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mode", "psychic"), "mode: choose direct, text_to_text, hybrid"),
        (("--mode", "direct", "--config", "a.yaml"), "give --mode or --config"),
        (("--config", "missing.yaml"), "no pipeline missing.yaml"),
        (("--decoder", "psychic"), "decoder.name: "),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "generate", "a text", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_info_counts_a_pipelines_parts(
    config: Path, lattice_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "info", "--config", config, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counted = count_parameters(load_lattice(lattice_folder).lattice)
    assert {row["part"].removeprefix("lattice."): row["parameters"] for row in rows} == counted
    assert {row["pipeline"] for row in rows} == {"own"}


def test_info_describes_any_checkpoint(
    lattice_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "info", lattice_folder, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["parameters"] == count_parameters(load_lattice(lattice_folder).lattice)["all"]
    assert (described["lattice.steps"], described["name"]) == (4, "small")
    for name in packaged_checkpoints():
        assert run(monkeypatch, "info", name) == 0
        assert name in capsys.readouterr().out


def test_show_draws_a_lattice_at_work(
    lattice_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("lattice", "show", "a dog", "--output", tmp_path / "new", "--checkpoint", lattice_folder)
    assert run(monkeypatch, *words, "--teacher", "hash:64") == 2
    assert "--teacher" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--teacher", "hash:384") == 0
    assert all(Path(line).is_file() for line in capsys.readouterr().out.splitlines())
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".png", ".gif"}


def test_a_pipelines_file_can_be_evaluated_on_the_texts_themselves(config: Path) -> None:
    texts, parts = ["a dog", "rain falls"], Parts(CountingTeacher(HashTeacher()), "")
    contender = make_contender(str(config), parts)
    assert (contender.name, contender.reads) == ("own", "texts")
    assert contender.decode(texts, 0) == FlexibleCellularPipeline(config).generate(texts)


def test_evaluation_refuses_a_mode_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "evaluate", "--mode", "psychic") == 2
    assert "choose direct, text_to_text, hybrid" in capsys.readouterr().err
