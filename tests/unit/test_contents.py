"""Which decoders an application serves, and which combinations it refuses before anything starts."""

import logging

import pytest

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
    contents = resolve(ServeConfig(banks=[str(phrases_bank)], checkpoint=str(ret_checkpoint)))
    decoders = ("PhraseBankDecoder", "RETDecoder", "HybridDecoder")
    assert contents.stages == (*decoders, "TextToText", "SessionStore")
    assert contents.teacher.name == "hash:384"


def test_a_checkpoint_alone_serves_ret_beside_what_comes_along(ret_checkpoint):
    contents = resolve(ServeConfig(checkpoint=str(ret_checkpoint)))
    assert contents.stages == ("RETDecoder", "TextToText")
    assert contents.banks == {}
    assert contents.teacher.name == "hash:384"


def test_a_relative_folder_is_found_from_anywhere(ret_checkpoint, monkeypatch):
    monkeypatch.chdir(ret_checkpoint.parent)
    assert resolve(ServeConfig(checkpoint=ret_checkpoint.name)).checkpoint == str(ret_checkpoint)


def test_stages_that_are_named_are_the_ones_served(phrases_bank, ret_checkpoint, lattice_checkpoint):
    parts = {"checkpoint": str(ret_checkpoint), "lattices": [str(lattice_checkpoint)]}
    for name in ("PhraseBankDecoder", "RETDecoder", "HybridDecoder", "Lattice"):
        config = ServeConfig(banks=[str(phrases_bank)], stages=[name], **parts)
        assert resolve(config).stages == (name,)


def test_banks_are_named_by_their_folders_or_by_a_name_that_is_given(phrases_bank):
    by_name = {phrases_bank.name: phrases_bank, "mine": phrases_bank}
    for banks in (f"{phrases_bank},mine={phrases_bank}", by_name):
        resolved = resolve(ServeConfig.model_validate({"banks": banks, "stages": "PhraseBankDecoder"}))
        assert {name: bank.folder for name, bank in resolved.banks.items()} == by_name


def test_banks_of_two_teachers_are_refused(phrases_bank, other_bank):
    with pytest.raises(CellularError, match=r"hash:0000000200000100.*hash:0000000200000180"):
        resolve(ServeConfig(banks=[str(phrases_bank), str(other_bank)]))


def test_a_lattice_of_another_teacher_is_refused(other_bank, lattice_checkpoint):
    with pytest.raises(CellularError, match=r"hash:0000000200000180.*hash:0000000200000100"):
        resolve(ServeConfig(banks=[str(other_bank)], lattices=[str(lattice_checkpoint)]))


def test_a_bank_of_another_teacher_is_served_without_ret_if_nobody_asked_for_it(other_bank, caplog):
    with caplog.at_level(logging.WARNING):
        stages = resolve(ServeConfig(banks=[str(other_bank)])).stages
    assert stages == ("PhraseBankDecoder", "TextToText", "SessionStore")
    assert "RETDecoder" in caplog.text


@pytest.mark.parametrize("asked", [{}, {"stages": "PhraseBankDecoder,RETDecoder"}])
def test_ret_that_was_asked_for_is_refused_beside_another_teachers_bank(other_bank, ret_checkpoint, asked):
    config = ServeConfig.model_validate(
        {"banks": [str(other_bank)], "checkpoint": str(ret_checkpoint)} | asked
    )
    with pytest.raises(CellularError, match=r"hash:0000000200000180.*hash:0000000200000100"):
        resolve(config)


def test_another_teacher_than_the_checkpoints_is_refused(ret_checkpoint):
    with pytest.raises(CellularError, match=r"hash:0000000200000180.*hash:0000000200000100"):
        resolve(ServeConfig(checkpoint=str(ret_checkpoint), teacher="hash"))


def test_a_stage_without_its_parts_is_refused():
    for stage in ("PhraseBankDecoder", "HybridDecoder"):
        with pytest.raises(CellularError, match=f"{stage}.*bank"):
            resolve(ServeConfig(stages=(stage,)))


def test_a_missing_checkpoint_is_named():
    with pytest.raises(CellularError, match="no checkpoint elsewhere"):
        resolve(ServeConfig(checkpoint="elsewhere"))
