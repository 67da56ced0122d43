"""A job that decodes files of embeddings: it loses no row, and goes on where it was."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.bank import create_bank
from cellular.config import DecodeCorpusConfig
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from pipelines.decode_corpus import REPORT, run
from pipelines.progress import silent

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Data's own
]
PHRASES = [f"Boat number {number} sails." for number in range(400)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank") / "bank"
    create_bank(folder, PHRASES, HashTeacher())
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phrases' embeddings in three formats; of the first four rows of a.parquet none is one."""
    folder = tmp_path_factory.mktemp("vectors")
    rows = HashTeacher().encode(PHRASES)
    broken = [None, [1.0], [0.0] * 256, [float("inf")] * 256]
    column = pa.array([*broken, *rows[:200].tolist()], pa.list_(pa.float32()))
    table = pa.table({"id": [f"id {number}" for number in range(204)], "embedding": column})
    pq.write_table(table, folder / "a.parquet", row_group_size=10)
    np.save(folder / "b.npy", rows[200:300])
    lines = [json.dumps({"embedding": row.tolist()}) for row in rows[300:]]
    (folder / "c.jsonl").write_text("\n".join(lines))
    return folder


def configure(target: Path, inputs: Path, bank: Path, **settings: object) -> DecodeCorpusConfig:
    fixed = {"decoder": "phrase_bank", "method": "greedy", "part_rows": 20, "workers": 1}
    return DecodeCorpusConfig.model_validate(
        {"inputs": [str(inputs)], "target": target, "bank": bank, **fixed, **settings}
    )


def read(target: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(target.glob("part-*.parquet"))])


def test_every_row_of_the_inputs_is_a_row_of_the_texts(tmp_path: Path, vectors: Path, bank: Path) -> None:
    report = run(configure(tmp_path / "texts", vectors, bank), track=silent)
    table = read(tmp_path / "texts")
    reasons = ["no embedding", "wrong dimension", "zero vector", "not finite"]
    assert table["text"].to_pylist() == [None] * 4 + PHRASES
    assert table["reason"].to_pylist()[:5] == [*reasons, None]
    places = [("a.parquet", 204), ("b.npy", 100), ("c.jsonl", 100)]
    assert table["file"].to_pylist() == [str(vectors / name) for name, count in places for _ in range(count)]
    assert table["row"].to_pylist() == [row for _, count in places for row in range(count)]
    assert (report.files, report.texts, report.rejected) == (3, 400, dict.fromkeys(reasons, 1))
    again = run(configure(tmp_path / "texts", vectors, bank), track=silent)
    assert again == report.model_copy(update={"up_to_date": True})


def test_columns_go_with_the_texts(tmp_path: Path, vectors: Path, bank: Path) -> None:
    keep = ["id", "embedding", "id"]
    run(configure(tmp_path / "texts", vectors / "a.parquet", bank, keep=keep, part_rows=1_000), track=silent)
    texts, given = read(tmp_path / "texts"), pq.read_table(vectors / "a.parquet")
    assert texts.column_names[-2:] == ["id", "embedding"]
    assert all(texts[name].to_pylist() == given[name].to_pylist() for name in ("id", "embedding"))


def test_a_killed_job_goes_on_and_decodes_no_part_twice(
    tmp_path: Path, vectors: Path, bank: Path, cluster: str, start_job: Callable[..., subprocess.Popen[str]]
) -> None:
    config = configure(tmp_path / "texts", vectors, bank)
    job = start_job("decode_corpus", config, address=cluster)
    while len(done := sorted(config.target.glob("part-*.parquet"))) < 2:
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.005)
    job.kill()
    job.wait()
    before = {path: path.stat().st_mtime_ns for path in done}
    assert not (config.target / REPORT).exists()
    report = run(config.model_copy(update={"part_rows": 7}), track=silent)
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert report.resumed >= 20
    assert read(config.target)["text"].to_pylist() == [None] * 4 + PHRASES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ("/missing",)}, "no embeddings at /missing"),
        ({"keep": ("text",)}, "cannot keep a column 'text'"),
        ({"keep": ("id",)}, "b.npy has no column 'id'"),
        ({"decoder": "ret", "method": None}, "b.npy holds embeddings of 256 numbers, where ret reads 384"),
        ({"lattice": "lattice-denoise-all-MiniLM-L6-v2"}, "the lattice reads embeddings of"),
    ],
)
def test_mistakes_are_told_before_any_work(
    tmp_path: Path, vectors: Path, bank: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(CellularError, match=message):
        run(configure(tmp_path / "texts", vectors, bank).model_copy(update=changes), track=silent)


def test_a_target_keeps_the_texts_of_one_job_until_restarted(
    tmp_path: Path, vectors: Path, bank: Path
) -> None:
    first = configure(tmp_path / "texts", vectors / "b.npy", bank)
    other = configure(tmp_path / "texts", vectors / "c.jsonl", bank)
    run(first, track=silent)
    with pytest.raises(CellularError, match="another job"):
        run(other, track=silent)
    assert read(first.target)["text"].to_pylist() == PHRASES[200:300]
    plan_of_a_bank = first.target / ".build" / "plan.json"
    plan_of_a_bank.write_text("{}")
    run(other, restart=True, track=silent)
    assert plan_of_a_bank.exists()
    assert read(first.target)["text"].to_pylist() == PHRASES[300:]
