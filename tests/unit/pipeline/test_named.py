"""The named pipelines, with the checkpoints that come along: their size, and what they say."""

import json
import sys

import pytest

from cellular import FlexibleCellularPipeline, load_config, load_teacher
from cellular.checkpoint_files import packaged_checkpoints
from cellular.pipeline import NAMED, PipelineConfigError
from jobs import cli, console

MILLIONS = {
    "direct_embedding_pipeline": (1, 2),
    "text_to_text_pipeline": (5, 10),
    "hybrid_embedding_pipeline": (2, 4),
}
TEXTS = ["A dog runs along the beach.", "What time do we have to leave tomorrow?"]


def test_info_prints_every_pipelines_parameters_in_its_range(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cellular", "info", "--json"])
    with pytest.raises(SystemExit):
        console.run(cli.app)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    totals = [row for row in rows if row.get("part") == "all"]
    counts = {row["pipeline"].removesuffix(", untrained"): row["parameters"] for row in totals}
    assert counts.keys() == MILLIONS.keys() == NAMED.keys()
    for name, (least, most) in MILLIONS.items():
        assert least * 1e6 <= counts[name] <= most * 1e6
    assert [row["name"] for row in rows if "name" in row] == packaged_checkpoints()


@pytest.mark.teacher
@pytest.mark.parametrize("name", ["direct_embedding_pipeline", "hybrid_embedding_pipeline"])
def test_what_a_pipeline_says_is_near_what_it_was_told(name: str) -> None:
    teacher, pipeline = load_teacher("all-MiniLM-L6-v2"), FlexibleCellularPipeline(name)
    said = pipeline.generate(TEXTS)
    cosines = (teacher.encode(said) * teacher.encode(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.5, said


def test_text_to_text_says_again_what_it_was_told() -> None:
    assert FlexibleCellularPipeline("text_to_text_pipeline").generate(TEXTS) == TEXTS


def test_a_checkpoint_that_is_not_there_is_named_with_its_setting() -> None:
    with pytest.raises(PipelineConfigError, match=r"text_to_text\.checkpoint: no checkpoint nowhere"):
        load_config({"mode": "text_to_text", "text_to_text": {"checkpoint": "nowhere"}})
