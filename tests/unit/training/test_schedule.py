"""The course of a training, by steps or by the clock."""

import pytest
from pydantic import ValidationError

from cellular.training.config import ScheduleConfig
from cellular.training.schedule import progress, rate_factor


def test_progress_is_by_steps_or_by_seconds() -> None:
    assert progress(ScheduleConfig(steps=10), 5, 1e9) == 0.5
    assert progress(ScheduleConfig(seconds=10), 10**9, 5) == 0.5
    assert progress(ScheduleConfig(steps=10), 50, 0) == 1.0


def test_rates_rise_linearly_then_fall_to_the_floor() -> None:
    config = ScheduleConfig(steps=1000, warmup_steps=50, floor=0.1)
    factors = [rate_factor(config, step, step / 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 50)
    assert max(factors) == factors[49] and factors[24] == pytest.approx(0.5, abs=0.01)
    assert factors[49:] == sorted(factors[49:], reverse=True)
    assert factors[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("length", [{"steps": 40}, {"seconds": 40.0}])
def test_a_short_training_warms_up_for_a_tenth_of_it(length: dict[str, float]) -> None:
    short, cold = ScheduleConfig(**length), ScheduleConfig(**length, warmup_steps=0)
    assert rate_factor(short, 2, 0.05) == pytest.approx(0.5 * rate_factor(cold, 2, 0.05))
    assert rate_factor(short, 4, 0.1) == rate_factor(cold, 4, 0.1)


@pytest.mark.parametrize("lengths", [{}, {"steps": 1, "seconds": 1.0}])
def test_a_length_is_given_once(lengths: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="either steps or seconds"):
        ScheduleConfig(**lengths)
