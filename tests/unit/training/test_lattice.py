"""Batches of embeddings: what is read, wanted, and wrong; and the models that learn from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cellular.decoders.ret.vocabulary import Vocabulary
from cellular.lattice import Lattice3D, LatticeCheckpoint, LatticeConfig, count_parameters, save_lattice
from cellular.mlp import MLP, MLPCheckpoint, save_mlp
from cellular.teachers import HashTeacher
from cellular.training.groups import write_groups
from cellular.training.lattice import EmbeddingSource, flops_per_embedding, make_model, make_trainer
from cellular.training.lattice_config import PairsConfig, TrainLatticeConfig

DIALOGUES = [["hello", f"I am {number}", f"{number} is good", "goodbye"] for number in range(6)]
TINY = LatticeConfig(size=(2, 2, 2), channels=16, face_channels=8, steps=2, sweeps=())


def configure(**settings: Any) -> TrainLatticeConfig:
    base = {
        "target": "unused",
        "data": {"corpus": {"inputs": ["unused"]}},
        "schedule": {"steps": 4},
        "lattice": TINY,
        "loss": {"extra": 8},
        "loop": {"batch": 16, "pass_rows": 8},
    }
    return TrainLatticeConfig.model_validate(base | settings)


@pytest.fixture
def table(tmp_path: Path) -> pa.Table:
    texts = [text for dialogue in DIALOGUES for text in dialogue]
    keys = np.unique(texts, return_inverse=True)[1].astype(np.int64)
    embeddings = HashTeacher(32).encode(texts)
    path = tmp_path / "groups.parquet"
    write_groups(path, texts, Vocabulary.load().encode_batch(texts), embeddings, keys, np.full(6, 4))
    return pq.read_table(path)


def source_of(table: pa.Table, config: TrainLatticeConfig) -> EmbeddingSource:
    return EmbeddingSource(lambda: [table], lambda: [table], config, torch.device("cpu"))


def texts_of(rows_BE: torch.Tensor) -> list[str]:
    texts = sorted({text for dialogue in DIALOGUES for text in dialogue})
    known = torch.from_numpy(HashTeacher(32).encode(texts))
    return [texts[number] for number in (rows_BE @ known.t()).argmax(1).tolist()]


def test_a_turn_leads_to_the_next_and_equal_texts_are_never_wrong(table: pa.Table) -> None:
    pairs = PairsConfig(group="dialogue", order="turn")
    config = configure(objective="map", pairs=pairs, history=2, damage={"clean": 1.0})
    batches, count = source_of(table, config).draw(0)
    assert count == 16 and len(batches) == 2
    follows = {dialogue[turn + 1]: dialogue[turn] for dialogue in DIALOGUES for turn in range(3)}
    for batch in batches:
        sources, targets = texts_of(batch.source_BE), texts_of(batch.target_BE)
        assert all(
            source == follows[target]
            for source, target in zip(sources, targets, strict=True)
            if target != "goodbye"
        )
        candidates = texts_of(batch.candidates_ME)
        assert len(candidates) == 8 + 8
        expected = [[target != candidate for candidate in candidates] for target in targets]
        assert batch.negative_BM.tolist() == expected
        assert batch.earlier_BNE.shape == (8, 2, 32)


def test_every_target_text_is_as_likely_as_any_other(table: pa.Table) -> None:
    config = configure(objective="map", pairs=PairsConfig(group="dialogue", order="turn"))
    source = source_of(table, config)
    drawn = [
        text for step in range(40) for batch in source.draw(step)[0] for text in texts_of(batch.target_BE)
    ]
    share = drawn.count("goodbye") / len(drawn)  # a quarter of the texts, a third of the turns that follow
    assert 1 / 13 - 0.04 < share < 1 / 13 + 0.04


def test_without_order_all_others_of_the_group_are_right(table: pa.Table) -> None:
    config = configure(objective="map", pairs=PairsConfig(group="image"), damage={"clean": 1.0})
    (batch, _), _ = source_of(table, config).draw(0)
    group = {text: number for number, dialogue in enumerate(DIALOGUES) for text in dialogue[1:3]}
    targets, candidates = texts_of(batch.target_BE), texts_of(batch.candidates_ME)
    for row, target in enumerate(targets):
        for column, candidate in enumerate(candidates):
            if target in group and group.get(candidate) == group[target]:
                assert not batch.negative_BM[row, column]


def test_a_step_draws_the_same_again_and_another_step_others(table: pa.Table) -> None:
    config = configure(objective="map", pairs=PairsConfig(group="dialogue", order="turn"))
    source, again = source_of(table, config), source_of(table, config)
    assert torch.equal(source.draw(3)[0][0].target_BE, again.draw(3)[0][0].target_BE)
    assert not torch.equal(source.draw(3)[0][0].target_BE, source.draw(4)[0][0].target_BE)


def test_half_of_the_histories_are_cut_somewhere(table: pa.Table) -> None:
    pairs = PairsConfig(group="dialogue", order="turn")
    whole, cut = (
        torch.cat(
            [
                batch.present_BN
                for step in range(20)
                for batch in source_of(
                    table, configure(objective="map", pairs=pairs, history=2, forget=forget)
                ).draw(step)[0]
            ]
        )
        for forget in (0.0, 0.9)
    )
    assert cut.float().mean() < 0.8 * whole.float().mean()
    assert not (cut[:, 0] & ~cut[:, 1]).any()  # what is forgotten is what is oldest


@pytest.mark.parametrize("model", ["lattice", "mlp"])
def test_a_few_steps_lower_the_loss_on_held_out_texts(table: pa.Table, model: str) -> None:
    torch.manual_seed(0)
    pairs = PairsConfig(group="dialogue", order="turn")
    config = configure(objective="map", pairs=pairs, model=model, optimizer={"average_steps": 0})
    trainer = make_trainer(config, make_model(config, 32))
    source = source_of(table, config)
    before = source.evaluate(trainer)
    for step in range(12):
        trainer.step(source.draw(step)[0], 0.0)
    after = source.evaluate(trainer)
    assert before and after and after < 0.8 * before
    assert source.evaluate(trainer) == after  # the same damage to the same texts


def test_the_mlp_beside_a_lattice_has_as_many_parameters() -> None:
    lattice = LatticeConfig(embedding_dimension=384)
    for history in (0, 8):
        config = configure(
            lattice=lattice,
            model="mlp",
            history=history,
            objective="map",
            pairs=PairsConfig(group="dialogue", order="turn"),
        )
        mlp = make_model(config, 384)
        assert isinstance(mlp, MLP)
        wanted = count_parameters(make_model_like(config))["all"]
        assert 0.99 * wanted < sum(weight.numel() for weight in mlp.parameters()) <= wanted


def test_a_width_that_is_given_is_the_mlps() -> None:
    mlp = make_model(configure(model="mlp", mlp={"hidden": 40, "skip": True}), 32)
    assert isinstance(mlp, MLP) and (mlp.config.hidden, mlp.config.skip) == (40, True)


def test_a_lattice_without_history_is_continued_with_one(tmp_path: Path) -> None:
    base = make_model(configure(), 32)
    assert isinstance(base, Lattice3D)
    save_lattice(tmp_path, LatticeCheckpoint(base, "hash:0001"))
    pairs = PairsConfig(group="dialogue", order="turn")
    config = configure(objective="map", pairs=pairs, history=2, base=str(tmp_path), lattice={"dropout": 0.25})
    lattice = make_model(config, 32)
    assert isinstance(lattice, Lattice3D) and lattice.config.dropout == 0.25 and lattice.history is not None
    kept = lattice.state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in base.state_dict().items())


def test_a_lattice_learns_from_a_guide(table: pa.Table, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pairs = PairsConfig(group="dialogue", order="turn")
    guide = make_model(configure(model="mlp"), 32)
    assert isinstance(guide, MLP)
    save_mlp(tmp_path, MLPCheckpoint(guide, "hash:0001"))
    loss = {"extra": 8, "soft": 0.99, "soft_temperature": 0.05}
    config = configure(
        objective="map", pairs=pairs, guides=[str(tmp_path)], loss=loss, optimizer={"average_steps": 0}
    )
    trainer, source = make_trainer(config, make_model(config, 32)), source_of(table, config)
    guide.eval()

    def likeness() -> float:
        probe_BE = torch.from_numpy(HashTeacher(32).encode(DIALOGUES[0]))
        with torch.inference_mode():
            return float((trainer.model.eval()(probe_BE) * guide(probe_BE)).sum(1).mean())

    before = likeness()
    for step in range(60):
        trainer.step(source.draw(step)[0], 0.0)
    assert likeness() > before + 0.1


def test_guides_read_what_is_hidden_from_the_model(table: pa.Table, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pairs = PairsConfig(group="dialogue", order="turn")
    hidden = {
        "history": 2,
        "forget": 0.9,
        "damage": {"clean": 0.0, "noise": 1.0},
        "loss": {"extra": 8, "soft": 0.5},
    }
    lattice = make_model(configure(objective="map", pairs=pairs, **hidden), 32)
    assert isinstance(lattice, Lattice3D)
    save_lattice(tmp_path, LatticeCheckpoint(lattice.eval(), "hash:0001"))
    config = configure(objective="map", pairs=pairs, guides=[str(tmp_path)], **hidden)
    (batch, *_), _ = source_of(table, config).draw(0)
    followed = {dialogue[turn + 1]: dialogue[: turn + 1] for dialogue in DIALOGUES for turn in range(3)}
    for target, near_E in zip(texts_of(batch.target_BE), batch.near_BE, strict=True):
        if target == "goodbye":
            continue
        *earlier, source = (torch.from_numpy(HashTeacher(32).encode([text])) for text in followed[target])
        before = (torch.stack(earlier[-2:], 1),) if earlier else ()
        with torch.inference_mode():
            assert float(lattice(source, *before)[0] @ near_E) > 0.999


def make_model_like(config: TrainLatticeConfig) -> Lattice3D:
    model = make_model(config.model_copy(update={"model": "lattice"}), 384)
    assert isinstance(model, Lattice3D)
    return model


def test_work_is_counted_by_the_products_of_a_pass() -> None:
    mlp = MLP(make_model(configure(model="mlp"), 32).config)  # type: ignore[arg-type]
    matrices = sum(weight.numel() for weight in mlp.parameters() if weight.ndim == 2)
    assert flops_per_embedding(mlp) == 3 * 2 * matrices


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "map"}, "map needs pairs"),
        ({"pairs": {"group": "image"}}, "map needs pairs, reconstruct has none"),
        ({"objective": "map", "pairs": {"source": "a"}}, "source and target need each other"),
        ({"objective": "map", "pairs": {"order": "a"}}, "give either group"),
        ({"objective": "map", "pairs": {"group": "a"}, "history": 2}, "history needs pairs with an order"),
        ({"guides": ["a"]}, r"guides need loss\.soft above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(**settings)


def test_what_is_not_set_is_as_suits_the_objective() -> None:
    assert configure().damage.bits == (4, 8)
    assert configure(loss={}).loss.contrast == 0.1 and configure(lattice={}).lattice.dropout == 0.0
    mapping = configure(objective="map", pairs=PairsConfig(group="image"), lattice={}, loss={"extra": 3})
    assert mapping.lattice.dropout > 0 and mapping.loss.cosine == 0.0 and mapping.loss.extra == 3
    assert mapping.damage.bits == () and mapping.damage.noise > 0
    set_apart = configure(objective="map", pairs=PairsConfig(group="image"), damage={"noise": 0.1})
    assert set_apart.damage.bits == () and set_apart.damage.noise == 0.1
