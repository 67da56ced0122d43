"""Every strategy maps both ways, is the same after it was saved, and refuses what is not of its spaces."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cellular.adapter import (
    STRATEGIES,
    AdapterConfig,
    Linear,
    PairSums,
    Space,
    StrategyName,
    UniversalAdapter,
    best_ridge,
    make_network,
    procrustes,
    ridge,
    squared_error,
)
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from cellular.types import FloatArray

SOURCE, TARGET = HashTeacher(48), HashTeacher(32)
Pairs = tuple[FloatArray, FloatArray]


def space(teacher: HashTeacher) -> Space:
    return Space(name=teacher.name, fingerprint=teacher.fingerprint, dimension=teacher.dimension)


@pytest.fixture(scope="module")
def pairs(topic_sentences: list[str]) -> Pairs:
    return SOURCE.encode(topic_sentences), TARGET.encode(topic_sentences)


def trained_network(strategy: StrategyName, pairs: Pairs) -> Linear:
    """A few steps away from the ridge, so that nothing in it is zero."""
    network = make_network(
        AdapterConfig(strategy=strategy, source_dimension=48, target_dimension=32, width=16)
    )
    sums = PairSums.of(*pairs)
    network.start(ridge(sums, 1e-3), ridge(sums.reversed, 1e-3))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    source, target = (torch.from_numpy(rows) for rows in pairs)
    for _ in range(3):
        loss = sum((there - wanted).square().mean() for there, wanted in network.compared(source, target))
        optimizer.zero_grad()
        torch.as_tensor(loss).backward()
        optimizer.step()
    return network


@pytest.fixture(scope="module", params=STRATEGIES)
def adapter(request: pytest.FixtureRequest, pairs: Pairs) -> Iterator[UniversalAdapter]:
    network = trained_network(request.param, pairs)
    yield UniversalAdapter(network, space(SOURCE), space(TARGET), {"steps": 3})


class TestEveryStrategy:
    @pytest.mark.parametrize("reverse", [False, True])
    def test_gives_unit_float32_rows_of_the_other_space(
        self, adapter: UniversalAdapter, pairs: Pairs, reverse: bool
    ) -> None:
        rows = adapter(pairs[reverse], reverse=reverse)
        assert rows.dtype == np.float32 and rows.shape == pairs[not reverse].shape
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)

    @pytest.mark.parametrize("reverse", [False, True])
    def test_is_nearer_to_the_other_teacher_than_chance(
        self, adapter: UniversalAdapter, pairs: Pairs, reverse: bool
    ) -> None:
        rows, wanted = adapter(pairs[reverse], reverse=reverse), pairs[not reverse]
        assert (rows * wanted).sum(1).mean() > (rows * np.roll(wanted, 1, axis=0)).sum(1).mean() + 0.1

    def test_is_deterministic(self, adapter: UniversalAdapter, pairs: Pairs) -> None:
        assert adapter(pairs[0]).tobytes() == adapter(pairs[0]).tobytes()

    def test_takes_one_embedding_and_none(self, adapter: UniversalAdapter, pairs: Pairs) -> None:
        np.testing.assert_allclose(adapter(pairs[0][0]), adapter(pairs[0])[:1], atol=1e-5)
        assert adapter(pairs[0][:0]).shape == (0, 32)

    def test_is_the_same_after_it_was_saved(
        self, adapter: UniversalAdapter, pairs: Pairs, tmp_path: Path
    ) -> None:
        adapter.save(tmp_path, "# A card")
        loaded = UniversalAdapter.load(tmp_path)
        assert (loaded.source, loaded.target, loaded.training) == (
            adapter.source,
            adapter.target,
            {"steps": 3},
        )
        assert loaded.strategy == adapter.strategy and loaded.parameters == adapter.parameters
        for reverse in (False, True):
            assert loaded(pairs[reverse], reverse).tobytes() == adapter(pairs[reverse], reverse).tobytes()
        assert (tmp_path / "README.md").read_text() == "# A card"

    def test_begins_as_the_ridge(self, adapter: UniversalAdapter, pairs: Pairs) -> None:
        sums = PairSums.of(*pairs)
        there, back = ridge(sums, 1e-3), ridge(sums.reversed, 1e-3)
        network = make_network(adapter.network.config)
        network.start(there, back)
        for rows, map, reverse in ((pairs[0], there, False), (pairs[1], back, True)):
            with torch.inference_mode():
                answer = network(torch.from_numpy(rows), reverse).numpy()
            np.testing.assert_allclose(answer, rows @ map.weight + map.bias, atol=1e-4)

    def test_refuses_vectors_of_another_space(self, adapter: UniversalAdapter) -> None:
        adapter.check_source(SOURCE.fingerprint)
        adapter.check_target(TARGET.fingerprint)
        with pytest.raises(
            CellularError, match=r"of hash:48 \(hash:0+20+30\), not of hash:0+20+20: embed with"
        ):
            adapter.check_source(TARGET.fingerprint)
        with pytest.raises(CellularError, match=r"of hash:32"):
            adapter.check_target(SOURCE.fingerprint)

    @pytest.mark.parametrize(
        "bad", [np.ones((2, 32)), np.zeros((1, 48)), np.full((1, 48), np.nan), np.ones((1, 48), int)]
    )
    def test_refuses_arrays_that_are_no_embeddings(self, adapter: UniversalAdapter, bad: FloatArray) -> None:
        with pytest.raises(ValueError, match="embedding"):
            adapter(bad)


def test_a_network_of_other_dimensions_is_refused(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="does not map 32 to 48"):
        UniversalAdapter(trained_network("linear", pairs), space(TARGET), space(SOURCE))


def test_weights_of_another_shape_are_named(pairs: Pairs, tmp_path: Path) -> None:
    for strategy in ("linear", "attention"):
        network = trained_network(strategy, pairs)
        UniversalAdapter(network, space(SOURCE), space(TARGET)).save(tmp_path / strategy)
    (tmp_path / "linear" / "model.safetensors").replace(tmp_path / "attention" / "model.safetensors")
    with pytest.raises(CellularError, match=r"not of the shape in its config\.json: restore both"):
        UniversalAdapter.load(tmp_path / "attention")


def test_sums_of_parts_are_those_of_the_whole(pairs: Pairs) -> None:
    parts = [PairSums.of(*(rows[part::3] for rows in pairs)) for part in range(3)]
    total, whole = PairSums.total(parts), PairSums.of(*pairs)
    np.testing.assert_allclose(ridge(total, 1e-2).weight, ridge(whole, 1e-2).weight, atol=1e-5)
    with pytest.raises(ValueError, match="no pairs"):
        PairSums.total([])


def test_the_ridge_is_that_of_scikit_learn(pairs: Pairs) -> None:
    from sklearn.linear_model import Ridge

    sums = PairSums.of(*pairs)
    own, _ = sums.covariances()
    expected = Ridge(alpha=1e-2 * np.trace(own) / len(own) * sums.count).fit(*pairs)
    found = ridge(sums, 1e-2)
    np.testing.assert_allclose(found.weight, expected.coef_.T, atol=1e-4)
    np.testing.assert_allclose(found.bias, expected.intercept_, atol=1e-4)


def test_the_best_ridge_is_best_on_what_was_held_out(pairs: Pairs) -> None:
    train, rest = (PairSums.of(*(rows[part] for rows in pairs)) for part in (slice(60), slice(60, None)))
    best = best_ridge(train, rest)
    assert squared_error(best, rest) <= squared_error(ridge(train, 1e-5), rest)
    outputs = pairs[0][60:] @ best.weight + best.bias
    assert squared_error(best, rest) == pytest.approx(np.square(outputs - pairs[1][60:]).sum(1).mean(), 1e-4)


def test_procrustes_finds_a_rotation(pairs: Pairs) -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 32)))[0].astype(np.float32)
    found = procrustes(PairSums.of(pairs[1], pairs[1] @ rotation + 0.5))
    np.testing.assert_allclose(found.weight, rotation, atol=1e-4)
    np.testing.assert_allclose(found.bias, 0.5, atol=1e-4)
