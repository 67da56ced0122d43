"""What is compared: every decoder can be, and each says what it costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cellular.bank import PhraseBank, create_bank
from cellular.decoders import DECODERS
from cellular.decoders.ret import RET, Checkpoint, TeacherInfo, Vocabulary, save_checkpoint
from cellular.decoders.ret.vocabulary import END
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from pipelines.contenders import CANDIDATES, CONTENDERS, CountingTeacher, Parts, make_contender

TEXTS = ["a dog on a beach", "rain falls"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    teacher = HashTeacher(384)
    info = TeacherInfo(name=teacher.name, fingerprint=teacher.fingerprint, dimension=384)
    folder = tmp_path_factory.mktemp("checkpoints") / "untrained"
    torch.manual_seed(0)
    model = RET()
    torch.nn.init.constant_(model.output_bias[END], 3.0)  # short texts
    save_checkpoint(folder, Checkpoint(model, Vocabulary.load(), info))
    return Parts(CountingTeacher(teacher), "a constant", checkpoint=folder, engine="torch")


def test_every_decoder_can_be_evaluated() -> None:
    assert DECODERS.keys() <= CONTENDERS.keys()


def test_the_nearest_phrase_of_what_the_bank_holds_is_itself(topic_bank: PhraseBank) -> None:
    nearest = make_contender("nearest", Parts(CountingTeacher(HashTeacher()), "", topic_bank))
    rows = topic_bank.embeddings([3, 5])
    assert nearest.decode(rows, 0) == topic_bank.phrases([3, 5])


def test_a_checkpoints_folder_is_a_decoder_under_its_name(parts: Parts) -> None:
    rows = parts.teacher.encode(TEXTS)
    contender = make_contender(str(parts.checkpoint), parts)
    assert contender.name == "untrained"
    assert contender.decode(rows, 0) == make_contender("ret", parts).decode(rows, 1)
    assert contender.about["parameters"] == "722,944"


def test_the_best_of_33_is_no_farther_than_greedy_and_costs_33_calls_a_text(parts: Parts) -> None:
    rows = parts.teacher.encode(TEXTS)
    greedy, best = (make_contender(name, parts) for name in ("ret", "ret_best_of_33"))
    before = parts.teacher.calls
    texts = best.decode(rows, 7)
    assert parts.teacher.calls - before == CANDIDATES * len(TEXTS)
    assert best.samples
    assert texts == best.decode(rows, 7)
    nearer, other = (parts.teacher.encode(some) * rows for some in (texts, greedy.decode(rows, 0)))
    assert np.all(nearer.sum(axis=1) >= other.sum(axis=1) - 1e-6)


def test_hybrid_asks_the_teacher_within_its_effort(parts: Parts, tmp_path: Path) -> None:
    create_bank(tmp_path / "bank", ["a dog runs on a beach", "rain falls on a roof"], HashTeacher(384))
    rows = parts.teacher.encode(TEXTS)
    hybrid = make_contender("hybrid_low", replace(parts, bank=PhraseBank.open(tmp_path / "bank")))
    before = parts.teacher.calls
    assert len(hybrid.decode(rows, 3)) == len(TEXTS)
    assert 0 < parts.teacher.calls - before <= 9 * len(TEXTS)


def test_a_checkpoint_of_another_teacher_is_refused(parts: Parts) -> None:
    others = Parts(CountingTeacher(HashTeacher(768)), "", checkpoint=parts.checkpoint, engine="torch")
    with pytest.raises(CellularError, match="these embeddings come from"):
        make_contender("ret", others)


def test_a_folder_that_is_no_checkpoint_is_a_mistake(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(CellularError, match="no decoder"):
        make_contender(str(tmp_path), parts)
