"""Scores and tests of what makes embeddings of embeddings, on small arrays and files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellular.config import MappingConfig, TeacherConfig
from cellular.errors import CellularError
from cellular.lattice import Lattice3D, LatticeCheckpoint, LatticeConfig, save_lattice
from cellular.mlp import MLP, MLPCheckpoint, MLPConfig, save_mlp
from cellular.teachers import HashTeacher
from pipelines.evaluate_mapping import mapping_scores, run
from pipelines.mappers import checkpoint_mapper, identity, mean, ridge
from pipelines.mapping_data import DAMAGES, MappingTest, damaged, held_out_pairs, pairs_of, training_pairs
from pipelines.mapping_report import cells, write_report

TEACHER = HashTeacher(32)
ROWS = TEACHER.encode([f"text {number}" for number in range(40)])


def write(path: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    """A train file and a test file; two texts of the test are known, and the order of rows means nothing."""
    for split, count in (("train", 30), ("test", 12)):
        rows = [
            (number, turn, f"{split} {number} says {turn}" if turn else "hello there")
            for turn in (1, 0, 2)
            for number in range(count)
        ]
        numbers, turns, texts = map(list, zip(*rows, strict=True))
        write(tmp_path / f"dialogue_{split}.parquet", dialogue_id=numbers, turn=turns, text=texts)
    return tmp_path


def test_scores_are_those_of_the_place_of_the_target() -> None:
    targets = np.eye(20, dtype=np.float32)
    outputs = targets.copy()
    outputs[0, 1] = 2.0  # second
    outputs[1, 2:14] = 2.0  # thirteenth
    scores = {name: found.mean for name, found in mapping_scores(outputs * 3, targets).items()}
    assert scores["r1"] == pytest.approx(18 / 20)
    assert scores["r10"] == pytest.approx(19 / 20)
    assert scores["mrr"] == pytest.approx((18 + 1 / 2 + 1 / 13) / 20)
    assert scores["cosine"] == pytest.approx((18 + 1 / 5**0.5 + 1 / 49**0.5) / 20)
    assert mapping_scores(targets, targets)["mrr"].error == 0.0


def test_an_answer_that_is_the_same_for_all_finds_nothing() -> None:
    answers = mean(MappingTest("", ROWS, ROWS)).map(ROWS, None)
    assert mapping_scores(answers, ROWS)["r1"].mean == pytest.approx(1 / 40)


def test_ridge_finds_a_linear_map_and_what_history_adds() -> None:
    rng = np.random.default_rng(0)
    sources = TEACHER.encode([f"source {number}" for number in range(400)])
    before = [TEACHER.encode([f"before {number}"])[: number % 2] for number in range(400)]
    shift = np.stack([some.sum(axis=0) for some in before])
    targets = sources @ rng.normal(size=(32, 32)).astype(np.float32) + 3 * shift
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    alone = ridge(MappingTest("", sources[:300], targets[:300]))
    whole = ridge(MappingTest("", sources[:300], targets[:300], before[:300]))
    assert not alone.history and whole.history
    with_history = mapping_scores(whole.map(sources[300:], before[300:]), targets[300:])["cosine"].mean
    without = mapping_scores(alone.map(sources[300:], None), targets[300:])["cosine"].mean
    assert with_history > without + 0.02
    assert whole.map(sources[300:], None).shape == (100, 32)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_the_same_each_time_and_leaves_the_true_rows_alone(name: str) -> None:
    before = ROWS.copy()
    first, second = damaged(name, ROWS), damaged(name, ROWS)
    assert np.array_equal(first.sources, second.sources) and np.array_equal(first.targets, before)
    assert np.array_equal(first.sources, before) == (name == "none")


def test_pairs_are_those_of_turns_whose_answer_is_new(dialogues: Path) -> None:
    file = dialogues / "dialogue_test.parquet"
    pairs = pairs_of(file)
    assert pairs is not None and pairs.order == "turn"
    seen = {"test 3 says 1", "test 4 says 2"}
    texts = held_out_pairs(file, pairs, seen, 100)
    assert len(texts.targets) == 22 and not seen & set(texts.targets)
    for source, target, earlier in zip(texts.sources, texts.targets, texts.earlier, strict=True):
        number, turn = target.split()[1], target.split()[-1]
        assert source == ("hello there" if turn == "1" else f"test {number} says 1")
        assert earlier == ([] if turn == "1" else ["hello there"])
    assert held_out_pairs(file, pairs, seen, 5).targets == texts.targets[:5]
    assert len(training_pairs(dialogues / "dialogue_train.parquet", pairs, 10).targets) == 10


def test_of_a_group_without_order_one_text_is_asked_for(tmp_path: Path) -> None:
    images = [number for number in range(4) for _ in range(3)]
    texts = [f"image {number} caption {row}" for row, number in enumerate(images)]
    file = write(tmp_path / "captions_test.parquet", image_id=images, text=texts)
    pairs = pairs_of(file)
    assert pairs is not None and not pairs.ordered
    found = held_out_pairs(file, pairs, set(), 100)
    assert len(found.targets) == 4 and set(found.sources) <= set(texts)
    assert [s.split()[1] for s in found.sources] == [t.split()[1] for t in found.targets]
    assert all(s != t for s, t in zip(found.sources, found.targets, strict=True))


def test_files_without_such_columns_have_no_pairs(tmp_path: Path) -> None:
    assert pairs_of(write(tmp_path / "open_test.parquet", text=["a", "b"])) is None


def test_an_evaluation_has_a_row_for_each_mapper_with_and_without_history(
    dialogues: Path, tmp_path: Path
) -> None:
    tiny = LatticeConfig(
        embedding_dimension=32, size=(2, 2, 2), channels=16, face_channels=4, steps=2, sweeps=(), history=16
    )
    save_lattice(tmp_path / "tiny" / "checkpoint", LatticeCheckpoint(Lattice3D(tiny), TEACHER.fingerprint))
    mlp = MLP(MLPConfig(embedding_dimension=32, hidden=8))
    save_mlp(tmp_path / "mlp", MLPCheckpoint(mlp, TEACHER.fingerprint))
    names = (str(tmp_path / "tiny" / "checkpoint"), str(tmp_path / "mlp"))
    teacher = TeacherConfig(name="hash:32")
    config = MappingConfig(
        task="map", checkpoints=names, data=dialogues, teacher=teacher, cache=tmp_path / "cache"
    )
    report = run(config)
    assert [(row.mapper, row.history) for row in report.rows] == [
        *((name, False) for name in ("identity", "mean", "ridge", "tiny", "mlp")),
        *((name, True) for name in ("ridge", "tiny")),
    ]
    assert cells(report.rows[-1])["set"] == "dialogue with history"
    page, saved = write_report(report, tmp_path / "out")
    assert "dialogue with history" in page.read_text() and "http" not in page.read_text()
    assert saved.read_text() == report.model_dump_json(indent=2)
    denoised = run(config.model_copy(update={"task": "denoise", "limit": 20}))
    assert [row.set for row in denoised.rows[::5]] == list(DAMAGES)
    assert denoised.rows[0].scores["cosine"].mean == pytest.approx(1.0)


def test_turns_and_paraphrases_are_each_judged_by_the_lattice_made_for_them(
    dialogues: Path, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        images = [number for number in range(6) for _ in range(2)]
        texts = [f"{split} image {number}, caption {row}" for row, number in enumerate(images)]
        write(dialogues / f"captions_{split}.parquet", image_id=images, text=texts)
    report = run(MappingConfig(task="map", data=dialogues, limit=4, fitted=100, cache=tmp_path / "cache"))
    lattices = {(row.set, row.mapper) for row in report.rows if row.parameters > 1_000_000}
    assert lattices == {
        ("captions", "lattice-paraphrase-all-MiniLM-L6-v2"),
        ("dialogue", "lattice-reply-all-MiniLM-L6-v2"),
    }


def test_a_checkpoint_of_another_teacher_or_kind_is_refused(tmp_path: Path) -> None:
    save_mlp(tmp_path / "mlp", MLPCheckpoint(MLP(MLPConfig(hidden=8)), "other:0001"))
    with pytest.raises(CellularError, match="reads embeddings of other:0001, not of mine:0002"):
        checkpoint_mapper(str(tmp_path / "mlp"), "mine:0002")
    with pytest.raises(CellularError, match="describes neither of lattice, mlp"):
        checkpoint_mapper("ret-all-MiniLM-L6-v2", "mine:0002")
    assert identity().parameters == 0
