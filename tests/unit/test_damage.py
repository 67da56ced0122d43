"""What is done to embeddings is what is said, and leaves them of unit length."""

import pytest
import torch
import torch.nn.functional as F

from cellular.damage import Damage, drop_dimensions, lose_dimensions, quantise
from cellular.objectives import move
from cellular.training.lattice_config import DamageConfig

ROWS_BE = F.normalize(torch.randn(200, 64, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.mark.parametrize(
    "config",
    [
        DamageConfig(),
        DamageConfig(clean=0.0, noise=2.0),
        DamageConfig(noise=0.0, drop=0.9, bits=()),
        DamageConfig(noise=0.0, drop=0.0, bits=(2,)),
    ],
)
def test_all_damage_leaves_rows_of_unit_length(config: DamageConfig) -> None:
    damaged_BE = Damage(config)(ROWS_BE)
    assert damaged_BE.shape == ROWS_BE.shape
    torch.testing.assert_close(damaged_BE.norm(dim=1), torch.ones(200))


def test_rows_are_damaged_in_every_way_but_for_the_clean_share() -> None:
    torch.manual_seed(0)
    damaged_BE = Damage(DamageConfig(clean=0.3, noise=1.0, drop=0.5, bits=(4, 8)))(ROWS_BE)
    clean_B = (damaged_BE == ROWS_BE).all(1)
    assert 0.2 < float(clean_B.float().mean()) < 0.4
    for bits in (4, 8):
        assert (damaged_BE == quantise(ROWS_BE, bits)).all(1).any()
    assert (damaged_BE == 0).any()


def test_without_any_way_nothing_changes() -> None:
    assert Damage(DamageConfig(noise=0.0, drop=0.0, bits=()))(ROWS_BE) is ROWS_BE


def test_few_bits_leave_few_numbers() -> None:
    for bits, levels in ((2, 3), (4, 15), (8, 255)):
        quantised_BE = quantise(ROWS_BE, bits)
        assert all(len(row.unique()) <= levels for row in quantised_BE)
        torch.testing.assert_close(quantise(quantised_BE, bits), quantised_BE)
    assert float((quantise(ROWS_BE, 8) * ROWS_BE).sum(1).min()) > 0.999


def test_shares_of_the_numbers_are_lost() -> None:
    lost_BE = lose_dimensions(ROWS_BE, torch.full((200, 1), 0.5))
    assert 0.45 < float((lost_BE == 0).float().mean()) < 0.55
    shares_B = (drop_dimensions(ROWS_BE, 0.8) == 0).float().mean(1)
    assert float(shares_B.min()) < 0.1 and 0.6 < float(shares_B.max()) < 0.95


def test_noise_of_a_length_gives_the_cosine_that_goes_with_it() -> None:
    moved_BE = move(ROWS_BE, torch.ones(200, 1))
    assert abs(float((moved_BE * ROWS_BE).sum(1).mean()) - 0.5**0.5) < 0.02
