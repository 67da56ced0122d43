"""Decoders by name, as `cellular decode` asks them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cellular.bank import create_bank
from cellular.decoders import DECODERS
from cellular.decoders.opening import OPENERS, DecodeOptions, open_decoder
from cellular.decoders.ret import (
    RET,
    Checkpoint,
    RETConfig,
    RETDecoder,
    TeacherInfo,
    Vocabulary,
    save_checkpoint,
)
from cellular.errors import CellularError
from cellular.queries import query_embeddings
from cellular.teachers import HashTeacher
from jobs import cli

TEACHER = HashTeacher(384)
PHRASES = ["a dog runs on the beach", "rain falls in the night"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> DecodeOptions:
    folder = tmp_path_factory.mktemp("parts")
    create_bank(folder / "bank", PHRASES, TEACHER)
    info = TeacherInfo(name=TEACHER.name, fingerprint=TEACHER.fingerprint, dimension=384)
    save_checkpoint(folder / "ret", Checkpoint(RET(RETConfig(applications=1)), Vocabulary.load(), info))
    return DecodeOptions(folder / "bank", str(folder / "ret"), effort="none")


def test_every_decoder_can_be_opened() -> None:
    assert OPENERS.keys() == DECODERS.keys()


@pytest.mark.parametrize("name", OPENERS)
def test_texts_and_files_give_the_same_answers(name: str, options: DecodeOptions, tmp_path: Path) -> None:
    decoder = open_decoder(name, options)
    np.save(tmp_path / "rows.npy", TEACHER.encode(PHRASES))
    rows = query_embeddings(decoder.dimension, decoder.teacher, PHRASES, None)
    assert decoder.teacher().fingerprint == TEACHER.fingerprint
    answers = decoder.answer(rows)
    assert len(answers) == 2
    read = query_embeddings(decoder.dimension, decoder.teacher, [], tmp_path / "rows.npy")
    assert [answer.text for answer in decoder.answer(read)] == [answer.text for answer in answers]
    if name != "ret":
        assert [answer.text for answer in answers] == PHRASES
        assert all(answer.score == pytest.approx(1, abs=1e-3) for answer in answers)


def test_ret_computes_in_the_precision_that_is_asked_for() -> None:
    rows = np.random.default_rng(0).normal(size=(8, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fp32, int8 = (
        [answer.text for answer in open_decoder("ret", DecodeOptions(precision=precision)).answer(rows)]
        for precision in (None, "int8")
    )
    assert int8 == RETDecoder.load(precision="int8").decode_batch(rows)
    assert int8 != fp32


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("psychic", {}, "choose phrase_bank, ret, hybrid"),
        ("ret", {"method": "weighted"}, "choose greedy, beam, sample"),
        ("ret", {"checkpoint": "missing"}, "no checkpoint missing"),
        ("hybrid", {"method": "greedy"}, "choose its effort"),
        ("hybrid", {"effort": "utmost"}, "choose among none"),
        ("phrase_bank", {"bank": Path("/missing")}, "no phrase bank in /missing"),
    ],
)
def test_mistakes_are_named(
    name: str, change: dict[str, object], message: str, options: DecodeOptions
) -> None:
    with pytest.raises(CellularError, match=message):
        open_decoder(name, options._replace(**change))


@pytest.mark.parametrize(("words", "source"), [((), "ret"), (("--bank", "{bank}"), "bank")])
def test_the_command_takes_the_bank_where_one_is_given_else_ret(
    words: tuple[str, ...],
    source: str,
    options: DecodeOptions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word.format(bank=options.bank) for word in words]
    call = ["cellular", "decode", "--text", PHRASES[0], "--checkpoint", str(options.checkpoint), "--json"]
    monkeypatch.setattr(sys, "argv", [*call, *given])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert exit.value.code == 0
    assert json.loads(capsys.readouterr().out)["source"] == source
