from pathlib import Path

import numpy as np
import pytest

from cellular.bank import create_bank
from cellular.decoders.ret import (
    Checkpoint,
    RETDecoder,
    TeacherInfo,
    load_checkpoint,
    save_checkpoint,
)
from cellular.decoders.ret.compression import Source, compress
from cellular.decoders.ret.sparsity import sparsity
from cellular.decoders.ret.weights import Precision, matrices
from cellular.embedding_files import write_embeddings
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.types import FloatArray
from jobs import compress_ret

HASH = HashTeacher(384)
TEACHER = TeacherInfo(name=HASH.name, fingerprint=HASH.fingerprint, dimension=HASH.dimension)
TEXTS = ["A cat sleeps.", "Rain again.", "Two dogs run along the beach.", "Nothing is here."]


@pytest.fixture
def checkpoint(memorised: RETDecoder) -> Checkpoint:
    return Checkpoint(memorised.model, memorised.vocabulary, TEACHER, {"steps": 200})


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 1_460_000), ("int8", 750_000)])
def test_eight_bits_and_more_need_no_calibration(
    precision: Precision, limit: int, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    report = compress(checkpoint, tmp_path, precision)
    assert report.bytes == (tmp_path / "model.safetensors").stat().st_size <= limit
    assert report.loss_before is None
    assert not report.needs_training


def test_four_bits_fit_450_kilobytes_and_say_what_they_cost(
    checkpoint: Checkpoint, mixed_embeddings: FloatArray, tmp_path: Path
) -> None:
    report = compress(checkpoint, tmp_path, "int4", embeddings=mixed_embeddings[:16])
    assert report.bytes <= 450_000
    assert report.loss_before is not None and report.loss_after is not None and report.same_texts is not None
    assert abs(report.loss_after - report.loss_before) < 0.1
    assert 0.5 < report.same_texts <= 1
    read = load_checkpoint(tmp_path)
    assert read.precision == "int4"
    assert read.training["steps"] == 200


def test_pruning_goes_to_the_file_and_asks_for_training(
    checkpoint: Checkpoint, mixed_embeddings: FloatArray, tmp_path: Path
) -> None:
    report = compress(checkpoint, tmp_path, "int4", 0.8, mixed_embeddings[:16])
    assert report.sparsity >= 0.8 - 1e-4
    assert report.bytes <= 225_000
    assert report.needs_training


def test_what_has_the_form_already_is_written_as_it_is(
    checkpoint: Checkpoint, mixed_embeddings: FloatArray, tmp_path: Path
) -> None:
    compress(checkpoint, tmp_path / "once", "int4", 0.5, mixed_embeddings[:4])
    once = load_checkpoint(tmp_path / "once")
    compress(once, tmp_path / "twice", "int4", 0.5)
    twice = load_checkpoint(tmp_path / "twice")
    assert sparsity(matrices(twice.model)) >= 0.5 - 1e-4
    assert all(
        np.array_equal(weight, matrices(once.model)[name]) for name, weight in matrices(twice.model).items()
    )


def test_calibration_without_embeddings_is_a_mistake(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CellularError, match="give some hundred texts, embeddings or a bank"):
        compress(checkpoint, tmp_path, "int4")
    assert not list(tmp_path.iterdir())


def test_embeddings_come_from_texts_a_file_or_a_bank(tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(TEXTS), "utf-8")
    file = tmp_path / "rows.npy"
    write_embeddings(file, TEXTS, HASH.encode(TEXTS))
    create_bank(tmp_path / "bank", TEXTS, HASH)
    sources = [Source(texts=str(lines)), Source(embeddings=file), Source(bank=tmp_path / "bank")]
    expected = {row.tobytes() for row in HASH.encode(TEXTS).astype(np.float16)}
    for source in sources:
        rows = source.read(TEACHER, 10)
        assert rows is not None
        assert {row.tobytes() for row in rows.astype(np.float16)} == expected
        assert len(source.read(TEACHER, 2)) == 2
    assert Source().read(TEACHER, 10) is None


def test_one_source_at_most(tmp_path: Path) -> None:
    with pytest.raises(CellularError, match="give one of"):
        Source(texts="some", bank=tmp_path).read(TEACHER, 10)


def test_texts_of_another_teacher_are_refused(tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(TEXTS), "utf-8")
    with pytest.raises(CellularError, match="reads other-1"):
        Source(texts=str(lines)).read(TEACHER.model_copy(update={"fingerprint": "other-1"}), 10)


def test_the_command_writes_a_checkpoint_and_advises(
    checkpoint: Checkpoint,
    mixed_embeddings: FloatArray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base, rows = tmp_path / "base", tmp_path / "rows.npy"
    save_checkpoint(base, checkpoint)
    write_embeddings(rows, [""] * 8, mixed_embeddings[:8])
    compress_ret.main(str(base), tmp_path / "small", sparsity=0.8, embeddings=rows, as_json=True)
    output = capsys.readouterr()
    assert '"precision":"int4"' in output.out
    assert "cellular ret train" in output.err
    assert load_checkpoint(tmp_path / "small").precision == "int4"
