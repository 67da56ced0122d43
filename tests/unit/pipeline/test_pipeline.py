"""A pipeline does what its pieces do one after the other, and loads no others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellular import FlexibleCellularPipeline, load_config
from cellular.adapter import UniversalAdapter
from cellular.cct import TextToText
from cellular.decoders.ret import RETDecoder
from cellular.errors import CellularError
from cellular.lattice import count_parameters, load_lattice
from cellular.lattice.inference import placed, process
from cellular.teachers import HashTeacher

Settings = dict[str, Any]
TEXTS = ["a dog on a beach", "rain falls"]


def test_direct_is_teacher_lattice_decoder(
    direct: Settings, lattice_folder: Path, ret_checkpoint: Path
) -> None:
    lattice, ret = placed(load_lattice(lattice_folder).lattice), RETDecoder.load(ret_checkpoint)
    expected = ret.decode_batch(process(lattice, HashTeacher(384).encode(TEXTS)))
    assert FlexibleCellularPipeline(direct).generate(TEXTS) == expected


def test_hybrid_adapts_before_the_lattice(
    hybrid: Settings, adapter_folder: Path, lattice_folder: Path
) -> None:
    adapter, lattice = UniversalAdapter.load(adapter_folder), placed(load_lattice(lattice_folder).lattice)
    rows, pipeline = HashTeacher(64).encode(TEXTS), FlexibleCellularPipeline(hybrid)
    np.testing.assert_array_equal(pipeline.process(rows), process(lattice, adapter(rows)))
    assert pipeline.decode(rows) == pipeline.generate(TEXTS)


def test_text_to_text_encodes_transforms_and_decodes(
    text_to_text: Settings, text_to_text_folder: Path
) -> None:
    model, pipeline = TextToText.load(text_to_text_folder), FlexibleCellularPipeline(text_to_text)
    rows = model.encode(TEXTS)
    np.testing.assert_array_equal(pipeline.process(rows), model.transform(rows, "answer"))
    assert pipeline.generate(TEXTS) == model.generate(TEXTS, 12, "answer") == pipeline.decode(rows)
    assert pipeline.parameters() == model.model.count_parameters()


@pytest.mark.parametrize("mode", ["direct", "hybrid", "text_to_text"])
def test_one_text_gives_one_text(mode: str, request: pytest.FixtureRequest) -> None:
    pipeline = FlexibleCellularPipeline(request.getfixturevalue(mode))
    first, second = pipeline.generate(TEXTS)
    assert pipeline.generate(TEXTS[1]) == second
    assert "".join(pipeline.stream(TEXTS[0])) == first
    assert pipeline.generate([]) == []


def test_a_bank_answers_where_one_is_given(direct: Settings, phrases_bank: Path, phrases: list[str]) -> None:
    pipeline = FlexibleCellularPipeline(load_config(direct, {"decoder": {"bank": phrases_bank}}))
    (answer,) = pipeline.answer(TEXTS[:1])
    assert answer.source == "bank"
    assert any(phrase in answer.text for phrase in phrases)
    assert "".join(pipeline.stream(TEXTS[0])) == answer.text


def test_hybrid_decoding_asks_the_teacher_that_is_there(direct: Settings, phrases_bank: Path) -> None:
    changes = {"decoder": {"name": "hybrid", "bank": phrases_bank, "effort": "none"}}
    assert len(FlexibleCellularPipeline(load_config(direct, changes)).generate(TEXTS)) == 2


def test_a_reply_depends_on_the_turns_before(
    direct: Settings, dialogue_lattice: Path, ret_checkpoint: Path
) -> None:
    rows, lattice = HashTeacher(384).encode(TEXTS), load_lattice(dialogue_lattice).lattice
    pipeline = FlexibleCellularPipeline({**direct, "lattice": {"checkpoint": dialogue_lattice}})
    (expected,) = RETDecoder.load(ret_checkpoint).decode_batch(process(lattice, rows[1:], [rows[:1]]))
    assert pipeline.reply(TEXTS) == expected
    assert pipeline.reply(TEXTS[1:]) == pipeline.generate(TEXTS[1])
    with pytest.raises(ValueError, match="at least one turn"):
        pipeline.reply([])


@pytest.mark.parametrize("mode", ["direct", "text_to_text"])
def test_a_lattice_without_history_gives_no_replies(mode: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(CellularError, match="knows no earlier turns"):
        FlexibleCellularPipeline(request.getfixturevalue(mode)).reply(TEXTS)


def test_without_a_lattice_embeddings_are_decoded_as_they_are(direct: Settings, ret_checkpoint: Path) -> None:
    pipeline = FlexibleCellularPipeline({**direct, "lattice": None})
    rows = HashTeacher(384).encode(TEXTS)
    np.testing.assert_array_equal(pipeline.process(rows), rows)
    assert pipeline.decode(rows) == RETDecoder.load(ret_checkpoint).decode_batch(rows)
    assert pipeline.parameters() == {"all": 0}


def test_fewer_steps_are_a_setting(direct: Settings) -> None:
    rows = HashTeacher(384).encode(TEXTS)
    whole, short = (
        FlexibleCellularPipeline(load_config(direct, {"lattice": {"steps": steps}})).process(rows)
        for steps in (None, 3)
    )
    assert not np.allclose(whole, short, atol=1e-3)


def test_parts_are_counted(hybrid: Settings, lattice_folder: Path, adapter_folder: Path) -> None:
    counts = FlexibleCellularPipeline(hybrid).parameters()
    assert counts["adapter"] == UniversalAdapter.load(adapter_folder).parameters
    assert counts["lattice.rule"] == count_parameters(load_lattice(lattice_folder).lattice)["rule"]
    assert counts.pop("all") == sum(counts.values())


def test_bad_embeddings_are_refused(direct: Settings) -> None:
    pipeline = FlexibleCellularPipeline(direct)
    with pytest.raises(ValueError, match="shape"):
        pipeline.process(np.ones((1, 64), np.float32))
    with pytest.raises(ValueError, match="not a string"):
        pipeline.generate([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("mode", "others"),
    [
        ("direct", ("cellular.cct", "cellular.adapter", "cellular.lsa", "sentence_transformers")),
        ("text_to_text", ("cellular.adapter", "cellular.lsa", "sklearn", "sentence_transformers")),
    ],
)
def test_a_mode_loads_nothing_of_the_others(
    mode: str, others: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    script = (
        "import json, sys; from cellular import FlexibleCellularPipeline\n"
        "FlexibleCellularPipeline(json.loads(sys.argv[1])).generate('a')\n"
        "print([name for name in sys.modules if name.startswith(tuple(sys.argv[2:]))])"
    )
    settings = json.dumps(request.getfixturevalue(mode), default=str)
    words = [sys.executable, "-c", script, settings, *others]
    assert subprocess.check_output(words, text=True) == "[]\n"
