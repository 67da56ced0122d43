import json
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from cellular.bank import PhraseBank, PhraseRecord, create_bank
from cellular.bank.manifest import Manifest, TeacherEntry, publish, seal
from cellular.bank.writer import PHRASE_SCHEMA, write_embeddings, write_phrases, write_sources
from cellular.config import IndexConfig
from cellular.errors import CellularError
from cellular.teachers import HashTeacher

TEACHER = HashTeacher(64)
WORDS = ["river", "stone", "window", "garden", "letter", "engine", "mirror", "winter"]
PHRASES = [f"the {a}{b} by the {c}" for a in WORDS for b in WORDS for c in WORDS]
INDEX = IndexConfig(factory="IVF8,SQ8")


@pytest.fixture(scope="module", params=["Flat", "IVF8,SQ8", "HNSW32"])
def bank(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("bank")
    index = IndexConfig(factory=request.param)
    create_bank(path, PHRASES, TEACHER, counts=range(1, len(PHRASES) + 1), index=index)
    return PhraseBank.open(path)


@pytest.fixture
def sharded(tmp_path):
    """Three shards of 2, 1 and 3 phrases, out of two sources."""
    staged = tmp_path / "staged"
    staged.mkdir()
    shards = [
        [("a", 5, 0, 10, 0), ("b", 1, 0, 10, 1)],
        [("c", 2, 1, 0, 3)],
        [("d", 1, 1, 7, 0), ("e", 4, 0, 99, 2), ("é\u0301 ∑ 中文", 2**32 - 1, 1, 2**40, 5)],
    ]
    batches = (pa.record_batch([list(c) for c in zip(*s, strict=True)], schema=PHRASE_SCHEMA) for s in shards)
    write_phrases(staged / "phrases.arrow", batches)
    write_embeddings(staged / "embeddings.arrow", [np.eye(6, 8, dtype=np.float32)], 8)
    write_sources(staged / "sources.parquet", ["s3://bucket/one.txt", "/two.txt"])
    teacher = TeacherEntry(name="hash", fingerprint="hash:08")
    occurrences = 5 + 1 + 2 + 1 + 4 + 2**32 - 1
    fields = {"dimension": 8, "phrases": 6, "occurrences": occurrences, "embedding_dtype": "float16"}
    seal(staged, Manifest(teacher=teacher, **fields))
    publish(tmp_path / "bank", staged)
    return PhraseBank.open(tmp_path / "bank")


def test_every_phrase_finds_itself_first(bank):
    scores, ids = bank.search(TEACHER.encode(PHRASES), 3)
    assert (ids[:, 0] == np.arange(len(PHRASES))).mean() > 0.98
    assert scores.dtype == np.float32 and ids.dtype == np.int64
    assert (scores <= 1).all() and (np.diff(scores, axis=1) <= 0).all()


def test_scores_are_cosines_with_the_stored_embeddings(bank):
    queries = TEACHER.encode(["the garden wall", "a letter in winter"])
    scores, ids = bank.search(17 * queries, 5)
    stored = bank.embeddings(ids.ravel()).reshape(2, 5, -1)
    np.testing.assert_allclose(scores, np.einsum("nkd,nd->nk", stored, queries), atol=1e-5)


def test_one_query_and_a_batch_give_the_same_answer(bank):
    queries = TEACHER.encode(["the garden wall", "a letter in winter", "x", "stone", "engine oil"])
    batch = bank.search(queries, 7)
    single = [bank.search(query, 7) for query in queries]
    np.testing.assert_allclose(batch.scores, np.concatenate([one.scores for one in single]), atol=1e-5)


def test_full_effort_is_exact(bank):
    queries = TEACHER.encode(["the garden wall", "a letter in winter"])
    found = bank.search(queries, 10, effort=512)
    np.testing.assert_allclose(found.scores, bank.exact_search(queries, 10).scores, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 5])
def test_more_hits_than_phrases_are_padded(sharded, rows):
    scores, ids = sharded.search(np.eye(8)[:rows], 9)
    assert scores.shape == ids.shape == (rows, 9)
    assert (ids[:, 6:] == -1).all() and np.isneginf(scores[:, 6:]).all()
    assert sorted(ids[0, :6]) == list(range(6))


def test_no_queries_give_no_hits(bank):
    scores, ids = bank.search(np.empty((0, 64), np.float32), 4)
    assert scores.shape == ids.shape == (0, 4)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.ones((2, 63)), r"shape \(N, 64\) or \(64,\), not \(2, 63\)"),
        (np.ones((2, 64), np.int64), "floating point, not int64"),
        (np.full((2, 64), np.nan), "row 0 holds nan at position 0"),
        (np.zeros(64), "row 0 is a zero vector"),
    ],
)
def test_an_invalid_query_is_refused_by_name_and_place(bank, query, message):
    for search in (bank.search, bank.exact_search):
        with pytest.raises(ValueError, match=message):
            search(query)


@pytest.mark.parametrize("arguments", [{"k": 0}, {"k": -1}])
def test_an_invalid_number_of_hits_is_refused(bank, arguments):
    with pytest.raises(ValueError, match="at least 1"):
        bank.search(np.ones(64), **arguments)


def test_ids_lead_to_the_same_phrases_through_all_shards(sharded):
    assert sharded.phrases(range(6)) == ["a", "b", "c", "d", "e", "é\u0301 ∑ 中文"]
    assert sharded.counts(np.array([5, 0, 2])).tolist() == [2**32 - 1, 5, 2]
    assert sharded.phrase(np.int64(3)) == "d"
    assert sharded.records([5, 1]) == [
        PhraseRecord(5, "é\u0301 ∑ 中文", 2**32 - 1, "/two.txt", 2**40, 5),
        PhraseRecord(1, "b", 1, "s3://bucket/one.txt", 10, 1),
    ]
    assert sharded.phrases([]) == [] and sharded.counts([]).shape == (0,)


@pytest.mark.parametrize("id", [-1, 6, 10**12])
def test_an_unknown_id_is_an_index_error(sharded, id):
    for read in (sharded.phrase, lambda id: sharded.records([id]), lambda id: sharded.counts([id])):
        with pytest.raises(IndexError, match=f"from 0 to 5, {id} is none"):
            read(id)


def test_another_teacher_is_refused_with_both_names(bank):
    bank.check_teacher(TEACHER.fingerprint)
    with pytest.raises(CellularError, match=f"embeddings of {TEACHER.fingerprint}, not of MiniLM:42"):
        bank.check_teacher("MiniLM:42")


def test_a_reader_of_the_old_version_goes_on_while_a_new_one_is_published(tmp_path):
    create_bank(tmp_path, PHRASES, TEACHER, index=INDEX)
    old = PhraseBank.open(tmp_path)
    before = old.search(TEACHER.encode(PHRASES[:9]), 5)
    assert create_bank(tmp_path, ["one phrase"], TEACHER) == "v000002"
    np.testing.assert_array_equal(old.search(TEACHER.encode(PHRASES[:9]), 5).ids, before.ids)
    assert old.phrase(511) == PHRASES[511]
    assert len(PhraseBank.open(tmp_path)) == 1
    again = PhraseBank.open(tmp_path, version="v000001")
    assert again.version_id == old.version_id != PhraseBank.open(tmp_path).version_id


def test_a_pickled_bank_reopens_its_own_version(tmp_path):
    create_bank(tmp_path, PHRASES, TEACHER, index=INDEX)
    pickled = pickle.dumps(PhraseBank.open(tmp_path))
    create_bank(tmp_path, ["one phrase"], TEACHER)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).version == "v000001"  # noqa: S301 - our own bytes


def _search_elsewhere(bank, queries):
    return bank.matrix.flags.writeable, bank.search(queries, 5).ids


def test_two_processes_map_the_same_bank(tmp_path):
    create_bank(tmp_path, PHRASES, TEACHER, index=INDEX)
    bank = PhraseBank.open(tmp_path)
    queries = TEACHER.encode(PHRASES[:9])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        writeable, ids = pool.apply(_search_elsewhere, (bank, queries))
    assert not writeable
    np.testing.assert_array_equal(ids, bank.search(queries, 5).ids)


def test_threads_with_different_efforts_do_not_disturb_each_other(bank):
    queries = TEACHER.encode(PHRASES[:64])
    expected = {effort: bank.search(queries, 5, effort=effort).ids for effort in (1, 2, 8)}
    with ThreadPoolExecutor(4) as pool:
        efforts = [1, 2, 8] * 20
        found = pool.map(lambda effort: bank.search(queries, 5, effort=effort).ids, efforts)
        for effort, ids in zip(efforts, found, strict=True):
            np.testing.assert_array_equal(ids, expected[effort])


@pytest.mark.parametrize("name", ["index.faiss", "embeddings.arrow", "phrases.arrow", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_missing_or_short_file_is_an_error_that_names_it(tmp_path, name, damage):
    version = create_bank(tmp_path, PHRASES, TEACHER, index=INDEX)
    path = tmp_path / "versions" / version / name
    content = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CellularError, match=name.split(".")[0]):
        PhraseBank.open(tmp_path)


def test_a_damaged_index_is_never_opened(tmp_path, monkeypatch):
    version = create_bank(tmp_path, PHRASES, TEACHER, index=INDEX)
    path = tmp_path / "versions" / version / "index.faiss"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("cellular.bank.phrase_bank.open_index", lambda path: pytest.fail("opened"))
    with pytest.raises(CellularError, match=rf"index\.faiss .*cellular bank verify {tmp_path}`"):
        PhraseBank.open(tmp_path)


def test_files_that_disagree_are_an_error(tmp_path):
    version = create_bank(tmp_path, PHRASES, TEACHER)
    path = tmp_path / "versions" / version / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"phrases": 3}))
    with pytest.raises(CellularError, match="disagree in their number of phrases"):
        PhraseBank.open(tmp_path)


def test_a_folder_without_a_bank_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CellularError, match="make one with `cellular bank build`"):
            PhraseBank.open(path)
    create_bank(tmp_path, ["one phrase"], TEACHER)
    with pytest.raises(CellularError, match="no version v000009"):
        PhraseBank.open(tmp_path, version="v000009")
