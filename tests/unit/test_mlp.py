"""The MLP that lattices are compared with."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cellular.errors import CellularError
from cellular.mlp import MLP, MLPCheckpoint, MLPConfig, equal_width, load_mlp, save_mlp

CONFIG = MLPConfig(embedding_dimension=16, hidden=24, history=2)
SOURCE_BE = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)


def test_a_saved_mlp_answers_as_before(tmp_path: Path) -> None:
    mlp = MLP(CONFIG).eval()
    save_mlp(tmp_path / "mlp", MLPCheckpoint(mlp, "hash:0001", {"steps": 3}))
    loaded = load_mlp(tmp_path / "mlp")
    assert loaded.teacher == "hash:0001" and loaded.training == {"steps": 3}
    assert torch.equal(loaded.mlp(SOURCE_BE), mlp(SOURCE_BE))
    torch.testing.assert_close(mlp(SOURCE_BE).norm(dim=1), torch.ones(5))


def test_what_is_absent_changes_nothing_and_what_is_too_old_neither() -> None:
    mlp = MLP(CONFIG).eval()
    earlier_BNE = SOURCE_BE[:, None].repeat(1, 3, 1)
    absent_BN = torch.zeros(5, 3, dtype=torch.bool)
    assert torch.equal(mlp(SOURCE_BE, earlier_BNE, absent_BN), mlp(SOURCE_BE))
    present_BN = absent_BN.clone()
    present_BN[:, 0] = True  # the third to last, where two are read
    assert torch.equal(mlp(SOURCE_BE, earlier_BNE, present_BN), mlp(SOURCE_BE))
    present_BN[:, 2] = True
    assert not torch.equal(mlp(SOURCE_BE, earlier_BNE, present_BN), mlp(SOURCE_BE))


@pytest.mark.parametrize("parameters", [10_000, 1_500_000])
def test_the_width_is_the_largest_that_fits(parameters: int) -> None:
    def count(hidden: int) -> int:
        mlp = MLP(MLPConfig(embedding_dimension=16, hidden=hidden, history=2))
        return sum(weight.numel() for weight in mlp.parameters())

    hidden = equal_width(parameters, 16, 2)
    assert count(hidden) <= parameters < count(hidden + 1)


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    save_mlp(tmp_path, MLPCheckpoint(MLP(CONFIG), "hash:0001"))
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"hidden": 24', '"hidden": 25'))
    with pytest.raises(CellularError, match=r"not of the shape in its config\.json: restore both"):
        load_mlp(tmp_path)


def test_with_a_skip_the_output_begins_as_the_input(tmp_path: Path) -> None:
    mlp = MLP(CONFIG.model_copy(update={"skip": True})).eval()
    assert float((mlp(SOURCE_BE) * SOURCE_BE).sum(1).detach().min()) > 0.9
    save_mlp(tmp_path, MLPCheckpoint(mlp, "hash:0001"))
    assert torch.equal(load_mlp(tmp_path).mlp(SOURCE_BE), mlp(SOURCE_BE))
