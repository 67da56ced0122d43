"""An evaluation as a whole, with the hash teacher: tables, files, baselines, seeds."""

import base64
import json
import re
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cellular.bank import create_bank
from cellular.config import EvaluationConfig, TeacherConfig
from cellular.errors import CellularError
from cellular.lattice import Lattice3D, LatticeCheckpoint, LatticeConfig, save_lattice
from cellular.teachers import HashTeacher
from cellular.types import FloatArray
from jobs import cli
from pipelines import contenders
from pipelines.contenders import Contender, Parts
from pipelines.evaluate import run
from pipelines.evaluation_report import COLUMNS, Evaluation, cells, page, write_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, topic_sentences: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, texts in {"one_train": topic_sentences[:500], "one_test": topic_sentences[500:600]}.items():
        pq.write_table(pa.table({"text": texts}), folder / f"{name}.parquet")
    create_bank(folder / "bank", topic_sentences[:500], HashTeacher())
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> EvaluationConfig:
    return EvaluationConfig(
        decoders=("phrase_bank",),
        data=folder,
        limit=70,
        bank=folder / "bank",
        teacher=TeacherConfig(name="hash"),
        cache=folder / "cache",
    )


@pytest.fixture(scope="module")
def evaluation(config: EvaluationConfig) -> Evaluation:
    return run(config)


@pytest.fixture(scope="module")
def written(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the report, by name."""
    paths = write_evaluation(evaluation, tmp_path_factory.mktemp("report"))
    return {path.name: path.read_text("utf-8") for path in paths}


def drawn(parts: Parts) -> Contender:
    """Says a word of its seed, and asks the teacher once for each text."""

    def decode(rows: FloatArray, seed: int) -> list[str]:
        parts.teacher.encode(["x"] * len(rows))
        return [f"The <b>{seed + row}</b> functions" for row in range(len(rows))]

    return Contender("drawn", decode, samples=True)


def test_the_table_has_the_baselines_and_what_was_asked(evaluation: Evaluation) -> None:
    rows = evaluation.report.rows
    assert [(row.set, row.decoder) for row in rows] == [
        ("one", "constant"),
        ("one", "nearest"),
        ("one", "phrase_bank"),
    ]
    constant, nearest, _ = rows
    assert constant.scores["exact_match"].mean == nearest.scores["exact_match"].mean == 0
    assert nearest.scores["cosine"].mean > constant.scores["cosine"].mean
    assert all(row.teacher_calls == 0 and row.texts == 70 for row in rows)


def test_scores_are_those_of_the_answers_written_beside_them(
    evaluation: Evaluation, written: dict[str, str]
) -> None:
    lines = [json.loads(line) for line in written["answers.jsonl"].splitlines()]
    for row in evaluation.report.rows:
        own = [line for line in lines if line["decoder"] == row.decoder]
        for name in ("f1", "cosine", "exact_match", "sentence_bleu"):
            assert sum(line[name] for line in own) / 70 == pytest.approx(row.scores[name].mean, abs=1e-6)


def test_json_and_page_say_what_the_table_says(evaluation: Evaluation, written: dict[str, str]) -> None:
    rows = json.loads(written["report.json"])["rows"]
    for row, fields in zip(evaluation.report.rows, rows, strict=True):
        shown = cells(row)
        for name, (heading, digits) in COLUMNS.items():
            mean, error = fields["scores"][name]["mean"], fields["scores"][name]["error"]
            assert shown[heading] == f"{mean:.{digits}f}±{error:.{digits}f}"
        assert all(f">{value}</td>" in written["report.html"] for value in shown.values())


def test_the_page_names_no_other_host(written: dict[str, str]) -> None:
    page = written["report.html"]
    plots = [base64.b64decode(data) for data in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", page)]
    assert len(plots) == 2
    assert "//" not in re.sub(r"base64,[\w+/=]+", "", page)
    for plot in plots:
        addresses = set(re.findall(rb'(\S+)="https?://', plot))
        assert addresses <= {b"xmlns", b"xmlns:xlink"}  # names of XML, which nobody fetches
        assert not re.search(rb"@import|url\((?!#)", plot)


def test_examples_are_ordered_by_cosine(evaluation: Evaluation) -> None:
    some = [example for example in evaluation.report.examples if example.decoder == "nearest"]
    assert len(some) == 12
    assert [example.cosine for example in some] == sorted((e.cosine for e in some), reverse=True)


def test_a_decoder_that_samples_runs_for_each_seed_and_its_teacher_calls_count(
    config: EvaluationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(contenders.CONTENDERS, "drawn", drawn)
    first, second = (run(config.model_copy(update={"decoders": ("drawn",)})) for _ in range(2))
    row = first.report.rows[-1]
    assert (row.decoder, row.seeds, row.teacher_calls) == ("drawn", 3, 1)
    assert len({tuple(answer.outputs) for answer in first.answers if answer.decoder == "drawn"}) == 3
    assert [answer.outputs for answer in first.answers] == [answer.outputs for answer in second.answers]
    assert [row.scores for row in first.report.rows] == [row.scores for row in second.report.rows]
    assert "The &lt;b&gt;" in page(first)
    assert "The <b>" not in page(first)


def test_damaged_embeddings_are_decoded_beside_whole_ones_also_behind_a_lattice(
    config: EvaluationConfig, tmp_path: Path
) -> None:
    shape = LatticeConfig(size=(2, 2, 2), embedding_dimension=256, channels=16, face_channels=4, sweeps=())
    save_lattice(tmp_path / "tiny", LatticeCheckpoint(Lattice3D(shape), HashTeacher().fingerprint))
    changes = {"damages": ("none", "noise 2"), "lattices": (str(tmp_path / "tiny"),), "limit": 20}
    rows = {(row.set, row.decoder): row for row in run(config.model_copy(update=changes)).report.rows}
    decoders = ("constant", "nearest", "phrase_bank", "phrase_bank behind tiny")
    assert set(rows) == {(name, one) for name in ("one", "one, noise 2") for one in decoders}
    whole, harmed = (rows[name, "nearest"].scores["cosine"].mean for name in ("one", "one, noise 2"))
    assert harmed < whole - 0.1
    untrained = rows["one", "phrase_bank behind tiny"].scores["cosine"].mean
    assert untrained < rows["one", "phrase_bank"].scores["cosine"].mean


def test_without_a_bank_the_report_says_what_is_missing(config: EvaluationConfig) -> None:
    report = run(config.model_copy(update={"bank": None, "decoders": ("constant",), "limit": 3})).report
    assert [row.decoder for row in report.rows] == ["constant"]
    assert "--bank" in report.notes[0]


def test_a_banks_folder_is_a_decoder_and_the_bank_of_the_evaluation(config: EvaluationConfig) -> None:
    bank = str(config.bank)
    report = run(config.model_copy(update={"bank": None, "decoders": (bank,), "limit": 3})).report
    assert [row.decoder for row in report.rows] == ["constant", "nearest", "phrase_bank"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoders": ("psychic",)}, "no decoder psychic: choose constant"),
        ({"decoders": ("phrase_bank",), "bank": None}, "pass --bank"),
        ({"teacher": TeacherConfig(name="hash:64")}, "holds embeddings of"),
        ({"sets": ("two",)}, "the sets there are: one"),
        ({"damages": ("rain",)}, "no damage rain: choose none, noise .5"),
        ({"lattices": ("lattice-denoise-all-MiniLM-L6-v2",)}, "reads embeddings of"),
    ],
)
def test_mistakes_say_what_to_do(config: EvaluationConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(CellularError, match=message):
        run(config.model_copy(update=changes))


def test_the_command_prints_a_table_or_json_and_writes_the_report(folder: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--decoder", "nearest", "--bank", str(folder / "bank"), "--data", str(folder)]
    words += ["--teacher", "hash", "--limit", "5", "--output", str(tmp_path)]
    table = CliRunner().invoke(cli.app, words)
    assert table.exit_code == 0, table.output
    rows = CliRunner().invoke(cli.app, [*words, "--json"]).stdout.splitlines()
    assert [orjson.loads(row)["decoder"] for row in rows] == ["constant", "nearest"]
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json", "answers.jsonl"}
    for row in json.loads((tmp_path / "report.json").read_text("utf-8"))["rows"]:
        assert f"{row['scores']['bleu']['mean']:.1f}±" in table.stdout
