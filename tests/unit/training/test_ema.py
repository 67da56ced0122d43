"""The average of the weights."""

import pytest
import torch

from cellular.training.ema import WeightAverage


def test_it_follows_the_weights_with_the_memory_it_is_given() -> None:
    weight = torch.zeros(1)
    average = WeightAverage([weight], steps=100)
    for step in range(1, 5001):
        weight.fill_(float(step))
        average.update(step)
    assert 5000 - 130 < float(average.tensors[0]) < 5000 - 70


def test_the_start_is_forgotten() -> None:
    weight = torch.full((1,), 1e6)
    average = WeightAverage([weight], steps=500)
    weight.zero_()
    for step in range(1, 201):
        average.update(step)
    assert float(average.tensors[0]) < 1e3


def test_without_memory_it_is_the_weights() -> None:
    weight = torch.zeros(3)
    average = WeightAverage([weight], steps=0)
    weight.fill_(7)
    average.update(1)
    assert average.tensors[0].tolist() == [7, 7, 7]
    assert average.tensors[0] is not weight


@pytest.mark.parametrize("steps", [3, 9, 17, 45, 99])
def test_the_average_of_a_short_training_is_of_its_last_tenth(steps: int) -> None:
    weight = torch.zeros(1)
    average = WeightAverage([weight], steps=500)
    for step in range(1, steps + 1):
        weight.fill_(float(step))
        average.update(step)
    assert 0.85 * steps < float(average.tensors[0]) <= steps
