import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from actors import segmenter
from actors.segmenter import Segmenter, Tally, chunk_path, hash_phrases, rejects_path
from cellular.config import CorpusConfig, PhraseRules
from cellular.documents import split_units
from cellular.files import find_inputs


def run(folder: Path, lines: list[bytes]) -> tuple[Tally, pa.Table, pa.Table]:
    """The tally, all chunks and the rejects of a corpus of one text file."""
    source, output = folder / "corpus.txt", folder / "000000.json"
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    corpus = CorpusConfig(inputs=(str(source),))
    units = json.dumps([asdict(unit) for unit in split_units(find_inputs(corpus), corpus)])
    Segmenter(corpus, PhraseRules())({"units": units, "output": str(output)})
    tally = Tally.read(output)
    chunks = pa.concat_tables([pq.read_table(chunk_path(output, n)) for n in range(tally.chunks)])
    return tally, chunks, pq.read_table(rejects_path(output))


def test_chunks_are_bounded_and_hold_every_occurrence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "CHUNK_PHRASES", 10)
    lines = [f"An owl sleeps. Boat {number} sails.".encode() for number in range(45)]
    tally, chunks, _ = run(tmp_path, lines)
    assert (tally.chunks, tally.rows, tally.occurrences) == (5, 50, 90)
    owls = chunks.filter(pc.equal(chunks["phrase"], "An owl sleeps."))
    assert sum(owls["count"].to_pylist()) == 45 and len(owls) == 5  # once a chunk


def test_a_chunk_is_sorted_by_hash_in_small_row_groups(tmp_path: Path) -> None:
    _, chunks, _ = run(tmp_path, [f"Boat {number} sails.".encode() for number in range(5_000)])
    hashes = chunks["hash"].to_numpy()
    assert (np.diff(hashes.astype(object)) > 0).all()
    assert pq.read_metadata(chunk_path(tmp_path / "000000.json", 0)).num_row_groups == 3
    np.testing.assert_array_equal(hashes, hash_phrases(chunks["phrase"].to_pylist()))


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    tally, chunks, rejects = run(tmp_path, [b"A boat sails.", b"\xff\xfe", b"12345 678.", b"No"])
    assert tally.rejects == {"not UTF-8": 1} and rejects["reason"].to_pylist() == ["not UTF-8"]
    assert tally.dropped == {"few letters": 1, "too short": 1}
    assert chunks["phrase"].to_pylist() == ["A boat sails."]


def test_hashes_never_change() -> None:
    assert hash_phrases(["", "a boat"]).tolist() == [13020603013274838756, 5954485651977945398]
