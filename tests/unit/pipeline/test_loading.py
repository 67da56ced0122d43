"""Settings: a person's own over a named one, and one error that lists every problem."""

from pathlib import Path
from typing import Any

import pytest

from cellular.bank import create_bank
from cellular.errors import CellularError
from cellular.pipeline import (
    NAMED,
    DirectPipelineConfig,
    FlexibleCellularPipeline,
    HybridPipelineConfig,
    PipelineConfigError,
    load_config,
)
from cellular.pipeline.loading import merge
from cellular.teachers import HashTeacher

Settings = dict[str, Any]


def problems(settings: Settings, changes: Settings | None = None) -> list[str]:
    with pytest.raises(PipelineConfigError) as error:
        load_config(settings, changes)
    assert all(problem in str(error.value) for problem in error.value.problems)
    assert "\n" not in str(error.value)
    return list(error.value.problems)


def test_own_values_go_over_the_base_at_any_depth() -> None:
    base = {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": 4}
    assert merge(base, {"a": {"c": {"d": 5}}, "f": {"g": 6}}) == {
        "a": {"b": 1, "c": {"d": 5, "e": 3}},
        "f": {"g": 6},
    }
    assert merge(base, {"a": None})["a"] is None


def test_a_file_is_a_dictionary_on_disk(direct: Settings, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    lines = [f"  checkpoint: {direct['lattice']['checkpoint']}", "  steps: 3"]
    path.write_text("\n".join(["lattice:", *lines, "teacher: {name: 'hash:384'}"]))
    changes = {"decoder": direct["decoder"]}
    config = load_config(path, changes)
    assert config == load_config(str(path), changes)
    assert config == load_config({**direct, "lattice": {**direct["lattice"], "steps": 3}})


def test_the_mode_or_the_base_chooses_what_is_changed(direct: Settings, hybrid: Settings) -> None:
    assert isinstance(load_config(direct), DirectPipelineConfig)
    assert isinstance(load_config(hybrid), HybridPipelineConfig)
    named = {**direct, "base": "direct_embedding_pipeline"}
    del named["mode"]
    assert load_config(named) == load_config(direct)
    assert set(NAMED.values()) == {"direct", "text_to_text", "hybrid"}


def test_every_problem_is_listed_with_its_path(direct: Settings, tmp_path: Path) -> None:
    create_bank(tmp_path / "bank", ["a phrase"], HashTeacher(64))
    found = problems(
        direct,
        {
            "lattice": {"steps": "eight", "size": 8},
            "teacher": {"nam": "hash"},
            "decoder": {"bank": tmp_path / "bank", "method": "psychic", "name": "phrase_bank"},
            "colour": "red",
        },
    )
    starts = ("teacher.nam: ", "lattice.steps: ", "lattice.size: ", "decoder.method: ", "colour: ")
    assert all(any(problem.startswith(start) for problem in found) for start in starts)
    (misfit,) = [problem for problem in found if problem.startswith("decoder.bank: ")]
    assert "64 numbers" in misfit
    assert "lattice.checkpoint writes" in misfit
    assert len(found) == 6


def test_an_unknown_key_is_told_its_likely_name(direct: Settings) -> None:
    assert problems(direct, {"lattice": {"step": 3}}) == [
        "lattice.step: there is no such setting; did you mean steps"
    ]


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"teacher": {"name": "hash:64"}}, "lattice.checkpoint: it reads hash:"),
        ({"lattice": {"checkpoint": "missing"}}, "lattice.checkpoint: no checkpoint missing"),
        ({"lattice": {"steps": 0}}, "lattice.steps: input should be greater than 0"),
        ({"lattice": {"steps": True}}, "lattice.steps: input should be a valid integer, not True"),
        ({"lattice": {"device": "tpu"}}, "lattice.device: input should be 'auto', 'cpu' or 'cuda'"),
        ({"lattice": 8}, "lattice: input should be"),
        ({"decoder": {"bank": "missing"}}, "decoder.bank: no phrase bank in missing"),
        ({"decoder": {"name": "hybrid", "bank": "b", "method": "greedy"}}, "decoder.method: hybrid has none"),
        ({"decoder": {"effort": "high"}}, "decoder.effort: ret has none"),
        ({"decoder": {"method": "psychic"}}, "decoder.method: choose greedy, beam, sample"),
        ({"mode": "hybrid", "base": "direct_embedding_pipeline"}, "mode: input should be 'direct'"),
        ({"mode": "psychic"}, "mode: choose direct, text_to_text, hybrid"),
        ({"base": "psychic"}, "base: choose direct_embedding_pipeline, "),
        ({"adapter": {"checkpoint": "a"}}, "adapter: there is no such setting; take "),
    ],
    ids=str,
)
def test_a_problem_has_its_path(direct: Settings, changes: Settings, start: str) -> None:
    assert any(problem.startswith(start) for problem in problems(direct, changes))


def test_an_adapter_of_another_teacher_does_not_fit(hybrid: Settings) -> None:
    (problem,) = problems(hybrid, {"teacher": {"name": "hash:384"}})
    assert problem.startswith("adapter.checkpoint: it reads ")


def test_a_task_that_was_not_learned_is_refused(text_to_text: Settings) -> None:
    assert problems(text_to_text, {"text_to_text": {"task": "sing"}}) == [
        "text_to_text.task: this model has say, answer, not 'sing'"
    ]
    assert problems(text_to_text, {"teacher": {"name": "hash"}, "text_to_text": {"checkpoint": "missing"}})[
        0
    ].startswith("teacher: there is no such setting")


def test_nothing_is_said_of_what_follows_a_piece_that_is_missing(hybrid: Settings) -> None:
    assert len(problems(hybrid, {"adapter": 3})) == 1
    assert len(problems(hybrid, {"adapter": {"checkpoint": "missing"}})) == 1
    assert len(problems(hybrid, {"lattice": {"checkpoint": "missing", "steps": 3}})) == 1


@pytest.mark.parametrize("key", [1, None, ("a",)])
def test_keys_that_are_no_strings_are_refused(direct: Settings, key: object) -> None:
    assert len(problems({**direct, key: 1})) == 1  # type: ignore[dict-item]


def test_steps_that_cross_nothing_are_refused(direct: Settings, tmp_path: Path) -> None:
    from cellular.lattice import Lattice3D, LatticeCheckpoint, LatticeConfig, save_lattice

    shape = LatticeConfig(size=(5, 2, 2), channels=16, face_channels=4, steps=5, sweeps=())
    save_lattice(tmp_path, LatticeCheckpoint(Lattice3D(shape), HashTeacher(384).fingerprint))
    (problem,) = problems(direct, {"lattice": {"checkpoint": tmp_path, "steps": 3}})
    assert problem.startswith("lattice.steps: without Mamba nothing crosses 5 layers")


def test_settings_made_by_hand_are_checked_by_the_pipeline(direct: Settings) -> None:
    config = load_config(direct)
    assert isinstance(config, DirectPipelineConfig)
    other = config.teacher.model_copy(update={"name": "hash:64"})
    with pytest.raises(PipelineConfigError, match=r"lattice\.checkpoint: it reads"):
        FlexibleCellularPipeline(config.model_copy(update={"teacher": other}))


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1\nb: 2", "is no YAML file"), ("just words", "must hold settings"), ("", "must hold settings")],
)
def test_a_file_that_is_no_settings_is_a_mistake(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(CellularError, match=message):
        load_config(path)


def test_a_missing_name_is_told_the_named_ones() -> None:
    with pytest.raises(CellularError, match="text_to_text_pipeline"):
        load_config("psychic_pipeline")
