import faiss
import numpy as np
import pytest

from cellular.bank import default_factory
from cellular.bank.calibration import calibrate, exclude_self, recall, sample_rows
from cellular.bank.index import (
    LISTS,
    add_rows,
    add_to_clone,
    check_factory,
    choose_factory,
    holds_each_once,
    merge_indexes,
    merges,
    open_index,
    train_index,
    training_rows,
    write_index,
)
from cellular.bank.search import Searcher, exact_search, stored_view
from cellular.config import IndexConfig
from cellular.errors import CellularError

FACTORIES = ["HNSW32", "IVF16,Flat", "IVF16,SQ8", "IVF16,PQ8x4", "IVF16,PQ8x4fs", "IVF16,RaBitQ"]


def unit_vectors(rows, dimension, seed=0, clusters=50):
    """Clustered, as texts are: uniformly random vectors have no neighbours to find."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(clusters, dimension))
    vectors = centres[generator.integers(clusters, size=rows)]
    vectors = vectors + 0.5 * generator.normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def matrix():
    return unit_vectors(3000, 32).astype(np.float16)


@pytest.fixture(scope="module")
def queries():
    return unit_vectors(20, 32, seed=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_view_of_stored_vectors_equals_an_owned_copy(matrix, queries, dtype):
    stored = matrix.astype(dtype)
    stored.flags.writeable = False
    if dtype == np.float16:
        kind = faiss.ScalarQuantizer.QT_fp16
        owned = faiss.IndexScalarQuantizer(32, kind, faiss.METRIC_INNER_PRODUCT)
    else:
        owned = faiss.IndexFlatIP(32)
    owned.add(stored.astype(np.float32))
    for of_view, of_copy in zip(
        stored_view(stored).search(queries, 10), owned.search(queries, 10), strict=True
    ):
        np.testing.assert_array_equal(of_view, of_copy)


@pytest.mark.parametrize("k", [1, 10, 3005])
def test_exact_search_in_tiles_equals_a_sort_of_all_products(matrix, queries, k, monkeypatch):
    monkeypatch.setattr("cellular.bank.search.TILE_ROWS", 700)
    monkeypatch.setattr("cellular.bank.search.QUERY_ROWS", 7)
    scores, ids = exact_search(matrix, queries, k)
    products = queries @ matrix.astype(np.float32).T
    kept = min(k, 3000)
    np.testing.assert_allclose(scores[:, :kept], -np.sort(-products, axis=1)[:, :kept], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, ids[:, :kept], 1), scores[:, :kept], atol=1e-6)
    assert (ids[:, kept:] == -1).all() and np.isneginf(scores[:, kept:]).all()


@pytest.mark.parametrize(
    ("rows", "dimension", "factory"),
    [
        (1, 384, "Flat"),
        (20_000, 384, "Flat"),
        (100_000, 384, "IVF1024,PQ96x4fs"),
        (1_000_000, 384, "IVF4096,PQ96x4fs"),
        (1_000_000, 768, "IVF4096,PQ192x4fs"),
        (1_000_000, 257, "IVF4096,PQ257x4fs"),
        (5_000_000, 384, "IVF65536_HNSW32,PQ96x4fs"),
        (20_000_000, 384, "IVF262144_HNSW32,PQ96x4fs"),
        (1_000_000_000, 384, "IVF1048576_HNSW32,PQ96x4fs"),
    ],
)
def test_the_default_index_follows_the_size(rows, dimension, factory):
    assert default_factory(rows, dimension) == factory


@pytest.mark.parametrize("dimension", [*range(1, 40), 257, 300, 383, 384, 512, 768, 1000, 1536])
@pytest.mark.parametrize("rows", [1, 10**6, 10**7])
def test_the_default_index_exists_for_every_dimension(rows, dimension):
    assert check_factory(default_factory(rows, dimension), dimension).d == dimension


@pytest.mark.parametrize("factory", ["nonsense", "", "IVF16", "IVF16,PQ5", "IVF16,PQ8x4fs,RFlat", "LSH"])
def test_an_unusable_factory_string_is_one_clear_line(factory):
    with pytest.raises(CellularError, match="use auto, Flat, HNSW") as caught:
        choose_factory(IndexConfig(factory=factory), 10_000, 32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("factory", "needed"), [("IVF1024,Flat", 1024), ("IVF16,PQ8", 256)])
def test_an_index_too_large_for_the_bank_is_refused_before_training(factory, needed):
    with pytest.raises(CellularError, match=f"needs at least {needed} phrases, there are 100"):
        choose_factory(IndexConfig(factory=factory), 100, 32)


def test_enough_rows_are_sampled_for_training():
    assert training_rows("IVF4096,PQ96x4fs", 10**6, IndexConfig()) == 64 * 4096
    assert training_rows("IVF4096,PQ96x4fs", 10**6, IndexConfig(training_rows=7)) == 7
    assert training_rows("HNSW32", 100, IndexConfig()) == 100


def test_a_sample_is_repeatable_sorted_and_without_repeats():
    sample = sample_rows(1000, 100)
    np.testing.assert_array_equal(sample, sample_rows(1000, 100))
    assert (np.diff(sample) > 0).all() and len(sample) == 100


@pytest.mark.parametrize("factory", FACTORIES)
def test_calibration_reaches_its_target_and_repeats_itself(matrix, factory):
    index = train_index(factory, matrix.astype(np.float32))
    add_rows(index, matrix, 0)
    entry = calibrate(index, matrix, factory, 0.97)
    assert entry.recall >= 0.97 and entry.warning is None
    assert entry == calibrate(index, matrix, factory, 0.97)


def test_a_target_out_of_reach_leaves_a_warning(matrix):
    index = train_index("IVF16,PQ1x4fs", matrix.astype(np.float32))
    add_rows(index, matrix, 0)
    entry = calibrate(index, matrix, "IVF16,PQ1x4fs", 1.0)
    assert entry.effort == 16 and "below the target 1.000" in entry.warning


def test_the_same_input_makes_the_same_index(matrix):
    def build():
        index = train_index("IVF16,PQ8x4fs", matrix.astype(np.float32))
        add_rows(index, matrix, 0)
        return faiss.serialize_index(index)

    np.testing.assert_array_equal(build(), build())


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
@pytest.mark.parametrize("factory", [name for name in FACTORIES if merges(name)])
def test_merged_parts_equal_one_index_filled_at_once(matrix, queries, tmp_path, factory, memory_bytes):
    trained = train_index(factory, matrix.astype(np.float32))
    write_index(trained, tmp_path / "trained")
    parts = []
    for start in (2000, 0, 1000):  # order must not matter: the ids are global
        parts.append(tmp_path / f"part{start}")
        write_index(add_to_clone(trained, matrix[start : start + 1000], start), parts[-1])
    merge_indexes(tmp_path / "trained", parts, tmp_path / "index.faiss", memory_bytes)
    assert (tmp_path / LISTS).exists() == (memory_bytes == 0 and not factory.endswith("fs"))
    merged = open_index(tmp_path / "index.faiss")
    assert trained.ntotal == 0 and holds_each_once(merged, 3000)

    add_rows(trained, matrix, 0)
    expected, _ = Searcher(trained, matrix).search(queries, 10, 8, 80)
    found, _ = Searcher(merged, matrix).search(queries, 10, 8, 80)
    np.testing.assert_array_equal(found, expected)


def test_a_graph_is_filled_in_sequence_only(matrix):
    index = train_index("HNSW32", matrix[:10].astype(np.float32))
    with pytest.raises(ValueError, match="next id 0, not 5"):
        add_rows(index, matrix[:10], 5)


def test_an_id_that_is_missing_or_double_is_noticed(matrix):
    index = train_index("IVF16,SQ8", matrix.astype(np.float32))
    add_rows(index, matrix[:100], 0)
    assert holds_each_once(index, 100)
    assert not holds_each_once(index, 101)
    add_rows(index, matrix[:1], 0)
    assert not holds_each_once(index, 101) and not holds_each_once(index, 100)


def test_recall_leaves_a_query_itself_out_and_counts_ties_as_found():
    scores = np.array([[1.0, 0.5, 0.4]], np.float32)
    kept, ids = exclude_self(scores, np.array([[7, 1, 2]]), np.array([7]), 2)
    assert kept.tolist() == [[0.5, pytest.approx(0.4)]] and ids.tolist() == [[1, 2]]
    assert exclude_self(scores, np.array([[3, 1, 2]]), np.array([7]), 2)[1].tolist() == [[3, 1]]
    assert recall(np.array([[0.5, 0.4]]), np.array([[0.5, 0.4]])) == 1
    assert recall(np.array([[0.5, 0.3]]), np.array([[0.5, 0.4]])) == 0.5
