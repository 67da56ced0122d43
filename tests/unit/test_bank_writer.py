import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from cellular.bank import PhraseBank, create_bank
from cellular.bank.search import map_embeddings
from cellular.bank.writer import PHRASE_SCHEMA, write_embeddings, write_phrases
from cellular.errors import CellularError
from cellular.teachers import HashTeacher


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shards_become_one_contiguous_mapped_array(tmp_path, dtype):
    shards = [np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32) for n in (3, 1, 7)]
    assert write_embeddings(tmp_path / "embeddings.arrow", shards, 5, dtype) == 11
    matrix = map_embeddings(tmp_path / "embeddings.arrow")
    assert matrix.dtype == dtype and matrix.flags.c_contiguous and not matrix.flags.writeable
    np.testing.assert_array_equal(matrix, np.concatenate(shards).astype(dtype))


def test_memory_does_not_grow_with_the_embeddings(tmp_path):
    shards = (np.full((2048, 64), number, np.float32) for number in range(100))  # 26 MB stored
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    write_embeddings(tmp_path / "embeddings.arrow", shards, 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_no_temporary_file_stays(tmp_path):
    write_embeddings(tmp_path / "embeddings.arrow", [np.ones((2, 3), np.float32)], 3)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.arrow"]


def test_a_shard_of_another_dimension_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\(n, 3\), not \(2, 4\)"):
        write_embeddings(tmp_path / "embeddings.arrow", [np.ones((2, 4), np.float32)], 3)


def test_each_shard_of_phrases_is_one_record_batch(tmp_path):
    def batch(*phrases):
        columns = [list(phrases), *[[1] * len(phrases)] * 4]
        return pa.record_batch(columns, schema=PHRASE_SCHEMA)

    path = tmp_path / "phrases.arrow"
    assert write_phrases(path, iter([batch("a", "b"), batch("c")])) == 3
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        assert [reader.get_batch(n).num_rows for n in range(reader.num_record_batches)] == [2, 1]


@pytest.mark.parametrize("phrases", [[], ["twice", "twice"]])
def test_a_bank_without_phrases_or_with_repeated_ones_is_refused(tmp_path, phrases):
    with pytest.raises(CellularError, match="at least one phrase, and each only once"):
        create_bank(tmp_path / "bank", phrases, HashTeacher(16))


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    class FailingTeacher(HashTeacher):
        def encode(self, texts):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        create_bank(tmp_path / "bank", ["a phrase"], FailingTeacher(16))
    assert not any((tmp_path / "bank").iterdir())


def test_the_whole_folder_is_readable_by_others(tmp_path):
    version = create_bank(tmp_path / "bank", ["a phrase"], HashTeacher(16))
    folder = tmp_path / "bank" / "versions" / version
    plain = tmp_path / "plain"
    plain.mkdir()
    assert folder.stat().st_mode == plain.stat().st_mode
    assert len(PhraseBank.open(tmp_path / "bank")) == 1
