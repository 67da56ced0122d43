"""Pairs of texts: found by columns, written by a worker, gathered in batches."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actors.pair_writer import PairWriter
from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.errors import CellularError
from cellular.training.buckets import WIDTHS, Buckets, Rows
from cellular.training.lattice_config import PairsConfig
from cellular.training.pairs import Pairs, find_pairs
from cellular.training.text_to_text_config import TASKS, PairDataConfig

DIALOGUE = pa.table(
    {
        "text": ["Hello there", "Bye now", "Hello  there", "How are you?", "I am fine", "A word"],
        "dialogue_id": ["b", "b", "a", "a", "a", "c"],
        "turn": [0, 1, 0, 2, 1, 0],
    }
)


def found(pairs: PairsConfig | None) -> set[tuple[str, str]]:
    texts, sources, targets = find_pairs(DIALOGUE, "text", pairs)
    return {(texts[source], texts[target]) for source, target in zip(sources, targets, strict=True)}


def test_a_text_goes_with_itself_once() -> None:
    texts = {"Hello there", "Bye now", "How are you?", "I am fine", "A word"}
    assert found(None) == {(text, text) for text in texts}
    assert len(find_pairs(DIALOGUE, "text", None).sources) == len(texts)


def test_a_turn_goes_with_the_next_of_its_dialogue() -> None:
    assert found(TASKS["reply"].pairs) == {
        ("Hello there", "Bye now"),
        ("Hello there", "I am fine"),
        ("I am fine", "How are you?"),
    }


def test_a_text_goes_with_the_others_of_its_group() -> None:
    a = ("Hello there", "How are you?", "I am fine")
    b = ("Hello there", "Bye now")
    expected = {(one, other) for group in (a, b) for one in group for other in group if one != other}
    assert found(PairsConfig(group="dialogue_id")) == expected


def test_columns_may_hold_the_pairs() -> None:
    table = pa.table({"question": ["one", "two"], "answer": ["eins", "zwei"]})
    texts, sources, targets = find_pairs(table, "text", PairsConfig(source="question", target="answer"))
    assert [(texts[s], texts[t]) for s, t in zip(sources, targets, strict=True)] == [
        ("one", "eins"),
        ("two", "zwei"),
    ]


def test_a_table_without_the_columns_has_no_pairs() -> None:
    assert not found(TASKS["paraphrase"].pairs)


def write(path: Path, **settings: Any) -> list[Path]:
    pq.write_table(DIALOGUE, path / "texts.parquet")
    data = {"corpus": {"inputs": ["unused"]}, "tasks": TASKS, **settings}
    writer = PairWriter(PairDataConfig.model_validate(data))
    output = path / "output"
    writer({"uri": str(path / "texts.parquet"), "format": "parquet", "output": str(output)})
    return sorted(output.iterdir())


def read(path: Path) -> set[tuple[int, str, str]]:
    decode = Vocabulary.load().decode
    rows = pq.read_table(path).to_pylist()
    return {(row["task"], decode(row["source"]), decode(row["target"])) for row in rows}


def test_a_file_becomes_shards_of_all_tasks(tmp_path: Path) -> None:
    files = write(tmp_path, held_out=0.0, shard_rows=5, min_characters=7)
    assert [file.name for file in files] == ["train-0000.parquet", "train-0001.parquet"]
    pairs = set.union(*map(read, files))
    assert {pair for pair in pairs if pair[0] == 0} == {
        (0, text, text) for text in ("Hello there", "Bye now", "How are you?", "I am fine")
    }
    assert {pair[1:] for pair in pairs if pair[0] == 1} == found(TASKS["reply"].pairs)


def test_a_source_is_held_out_in_all_its_pairs(tmp_path: Path) -> None:
    held_out, train = (read(file) for file in write(tmp_path, held_out=0.5))
    sources = [{source for _, source, _ in part} for part in (held_out, train)]
    assert all(sources) and not sources[0] & sources[1]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"rubbish")
    writer = PairWriter(PairDataConfig.model_validate({"corpus": {"inputs": ["unused"]}}))
    with pytest.raises(CellularError, match=r"cannot read .*bad\.parquet"):
        writer({"uri": str(tmp_path / "bad.parquet"), "format": "parquet", "output": str(tmp_path / "o")})


def test_batches_hold_sources_targets_and_tasks_as_often_as_weighed(tmp_path: Path) -> None:
    [file] = write(tmp_path, held_out=0.0)
    table = pq.read_table(file)
    whole = Pairs.of(table, (3, 1, 1))
    pairs = Pairs.join([Pairs.of(table.slice(0, 4), (3, 1, 1)), Pairs.of(table.slice(4), (3, 1, 1))])
    for one, other in zip(whole.__dict__.values(), pairs.__dict__.values(), strict=True):
        assert isinstance(one, torch.Tensor) is False or torch.equal(one, other)
    decode, rows = Vocabulary.load().decode, Rows(16, torch.arange(len(pairs.lengths)), torch.ones(1).bool())
    batch = pairs.batch(rows)
    seen = [
        (int(task), decode(source.tolist()), decode(target.tolist()))
        for task, source, target in zip(batch.tasks_B, batch.sources_BS, batch.targets_BL, strict=True)
    ]
    assert set(seen) == read(file)
    assert (
        seen.count((0, "I am fine", "I am fine")) == 3 and seen.count((1, "I am fine", "How are you?")) == 1
    )
    assert torch.equal(batch.inputs_BL, batch.targets_BL[:, :-1])
    assert torch.equal(batch.mask_BL.sum(1), (batch.targets_BL != 0).sum(1) + 1)
    assert next(Buckets(pairs, 64, seed=0).every()).width == WIDTHS[0]
