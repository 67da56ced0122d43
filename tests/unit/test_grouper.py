"""From files to groups of texts with their embeddings."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from actors.grouper import GroupEmbedder, Grouper
from cellular.config import CorpusConfig, TeacherConfig
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.training.groups import groups_of
from cellular.training.lattice_config import PairsConfig

TEACHER = TeacherConfig(name="hash:16")
TABLE = pa.table(
    {
        "talk": ["b", "a", "b", "a", None, "a", "c"],
        "turn": [10, 2, 9, 1, 1, 11, 1],
        "text": ["yes", "two  words", "well", "one", "nowhere", "yes", ""],
    }
)
GROUPS = {"a": ["one", "two words", "yes"], "b": ["well", "yes"]}


def grouped(path: Path, format: str, pairs: PairsConfig) -> Path:
    output = path.with_name("chunk.parquet")
    Grouper(CorpusConfig(inputs=(str(path),)), pairs)(
        {"uri": str(path), "format": format, "output": str(output)}
    )
    return output


def embedded(chunks: list[Path], held_out: float = 0.0, ranges: int = 1) -> list[dict[str, Any]]:
    """The rows of all shards."""
    work = GroupEmbedder(TEACHER, None, held_out, [str(chunk) for chunk in chunks])
    rows: list[dict[str, Any]] = []
    for number in range(ranges):
        paths = {key: str(chunks[0].with_name(f"{key}-{number}.parquet")) for key in ("output", "held_out")}
        work({"number": number, "ranges": ranges, **paths})
        for key, path in paths.items():
            rows += [row | {"of": key} for row in pq.read_table(path).to_pylist()]
    return rows


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_texts_stand_in_the_order_of_their_group(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"talks.{format}"
    if format == "parquet":
        pq.write_table(TABLE, path)
    elif format == "csv":
        pyarrow.csv.write_csv(TABLE, path)
    else:
        path.write_text("\n".join(map(_json, TABLE.to_pylist())))
    rows = embedded([grouped(path, format, PairsConfig(group="talk", order="turn"))])
    assert sorted(row["text"] for row in rows) == sorted(GROUPS.values())


def _json(row: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(row).decode()


def test_equal_texts_have_equal_keys_and_the_embeddings_of_the_teacher(tmp_path: Path) -> None:
    pq.write_table(TABLE, path := tmp_path / "talks.parquet")
    embedded([grouped(path, "parquet", PairsConfig(group="talk", order="turn"))])
    table = pq.read_table(tmp_path / "output-0.parquet")
    groups, texts = groups_of(table), [text for some in table["text"].to_pylist() for text in some]
    expected = HashTeacher(16).encode(texts).astype(np.float16)
    assert np.array_equal(groups.texts.embeddings_NE.numpy(), expected)
    same = groups.keys_N[:, None] == groups.keys_N
    assert same.tolist() == [[first == second for second in texts] for first in texts]


def test_a_row_with_a_source_and_a_target_is_a_group_of_two(tmp_path: Path) -> None:
    table = pa.table({"question": ["who?", "why?", None], "answer": ["me", "so", "x"]})
    pq.write_table(table, path := tmp_path / "pairs.parquet")
    rows = embedded([grouped(path, "parquet", PairsConfig(source="question", target="answer"))])
    assert sorted(row["text"] for row in rows) == [["who?", "me"], ["why?", "so"]]


def test_shards_hold_each_group_once_and_a_share_is_held_out(tmp_path: Path) -> None:
    names = [f"talk {number}" for number in range(60) for _ in range(3)]
    turns = [0, 1, 2] * 60
    texts = [f"{name} says {turn}" for name, turn in zip(names, turns, strict=True)]
    pq.write_table(pa.table({"talk": names, "turn": turns, "text": texts}), path := tmp_path / "t.parquet")
    chunk = grouped(path, "parquet", PairsConfig(group="talk", order="turn"))
    rows = embedded([chunk], held_out=0.1, ranges=4)
    assert sorted(row["text"][0] for row in rows) == sorted(texts[::3])
    assert all(len(row["text"]) == 3 for row in rows)
    assert 3 <= sum(row["of"] == "held_out" for row in rows) <= 9


def test_an_order_that_is_no_number_is_a_mistake(tmp_path: Path) -> None:
    table = TABLE.append_column("when", pa.array(["early"] * 7))
    pq.write_table(table, path := tmp_path / "talks.parquet")
    with pytest.raises(CellularError, match="the column of the order must hold numbers"):
        grouped(path, "parquet", PairsConfig(group="talk", order="when"))
