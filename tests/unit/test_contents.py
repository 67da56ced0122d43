"""Which decoders an application serves, and which combinations it refuses before anything starts."""

import logging

import pytest
from pydantic import ValidationError

from cellular.bank import create_bank
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from serve.contents import resolve
from serve.settings import ServeConfig


@pytest.fixture
def other_bank(tmp_path):
    """A bank of another teacher than the checkpoint's."""
    create_bank(tmp_path, ["two dogs sleep", "the owl sings"], HashTeacher())
    return tmp_path


def test_bank_and_checkpoint_of_one_teacher_serve_every_decoder(phrases_bank, ret_checkpoint):
    contents = resolve(ServeConfig(bank=phrases_bank, checkpoint=str(ret_checkpoint)))
    assert contents.decoders == ("phrase_bank", "ret", "hybrid")
    assert contents.teacher.name == "hash:384"


def test_a_checkpoint_alone_serves_ret(ret_checkpoint):
    contents = resolve(ServeConfig(checkpoint=str(ret_checkpoint)))
    assert contents.decoders == ("ret",)
    assert contents.bank is None
    assert contents.teacher.name == "hash:384"


def test_a_relative_folder_is_found_from_anywhere(ret_checkpoint, monkeypatch):
    monkeypatch.chdir(ret_checkpoint.parent)
    assert resolve(ServeConfig(checkpoint=ret_checkpoint.name)).checkpoint == str(ret_checkpoint)


def test_decoders_that_are_named_are_the_ones_served(phrases_bank, ret_checkpoint):
    for name in ("phrase_bank", "ret", "hybrid"):
        config = ServeConfig(bank=phrases_bank, checkpoint=str(ret_checkpoint), decoders=(name,))
        assert resolve(config).decoders == (name,)


def test_a_bank_of_another_teacher_is_served_without_ret_if_nobody_asked_for_it(other_bank, caplog):
    with caplog.at_level(logging.WARNING):
        assert resolve(ServeConfig(bank=other_bank)).decoders == ("phrase_bank",)
    assert "ret" in caplog.text


@pytest.mark.parametrize("asked", [{}, {"decoders": "phrase_bank,ret"}])
def test_ret_that_was_asked_for_is_refused_beside_another_teachers_bank(other_bank, ret_checkpoint, asked):
    config = ServeConfig.model_validate({"bank": other_bank, "checkpoint": str(ret_checkpoint)} | asked)
    with pytest.raises(CellularError, match=r"hash:0000000000000180.*hash:0000000000000100"):
        resolve(config)


def test_another_teacher_than_the_checkpoints_is_refused(ret_checkpoint):
    with pytest.raises(CellularError, match=r"hash:0000000000000180.*hash:0000000000000100"):
        resolve(ServeConfig(checkpoint=str(ret_checkpoint), teacher="hash"))


def test_a_decoder_that_needs_a_bank_is_refused_without_one():
    with pytest.raises(ValidationError, match="needs a bank"):
        ServeConfig(decoders=("ret", "hybrid"))


def test_a_missing_checkpoint_is_named():
    with pytest.raises(CellularError, match="no checkpoint elsewhere"):
        resolve(ServeConfig(checkpoint="elsewhere"))
