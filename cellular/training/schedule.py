"""The course of a training: its progress from 0 to 1, and the learning rate that goes with it."""

import math

from cellular.training.config import ScheduleConfig

_WARMUP = 0.1  # of a training, at most


def progress(config: ScheduleConfig, step: int, seconds: float) -> float:
    """Share of the training that is done, 0 to 1, by steps or by seconds."""
    done = step / config.steps if config.steps else seconds / config.seconds if config.seconds else 1.0
    return min(done, 1.0)


def rate_factor(config: ScheduleConfig, step: int, done: float) -> float:
    """What the learning rates are multiplied by: a linear warm-up, then a cosine down to the floor.

    Loshchilov & Hutter 2017, SGDR.
    """
    warmup = min(1.0, max((step + 1) / max(1, config.warmup_steps), done / _WARMUP))
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return warmup * (config.floor + (1 - config.floor) * cosine)
