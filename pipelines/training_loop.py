"""The loop that every worker of a training runs: steps, a look at the clock, reports, checkpoints."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ray.train
import torch
import torch.distributed as dist

from cellular.training.config import LoopConfig, ScheduleConfig
from cellular.training.schedule import progress, rate_factor
from cellular.training.state import load_state, save_state
from cellular.training.trainer import Trainer
from pipelines.training_log import SPEED

LOOK_SECONDS = 1.0  # between looks at the clock, where steps are longer than a fraction of that
SAVE_SHARE = 0.1  # of the time, at most, goes into checkpoints by time and the held-out loss that each tells
PEAK_FLOPS = {"H200": 990e12, "H100": 990e12, "A100": 312e12, "L40S": 362e12}  # dense bf16, a second


class Source(Protocol):
    """Where batches come from."""

    @property
    def unit(self) -> str:
        """What positions are, for people: "tokens"."""

    def warm_up(self, trainer: Trainer) -> None:
        """Let everything compile that training will need, without learning."""

    def draw(self, step: int) -> tuple[Sequence[Any], int]:
        """This worker's batches of one optimiser step, and the positions in them."""

    def evaluate(self, trainer: Trainer) -> float | None:
        """The loss of the averaged weights on what is held out, if anything is."""

    @property
    def position(self) -> Any:
        """Plain values that `seek` takes."""

    def seek(self, position: Any) -> None:
        """Go on where another source stood, perhaps of another number of workers."""


class Tick(NamedTuple):
    """What rank 0 decides for all."""

    seconds: float
    steps: float  # until the next
    log: bool
    checkpoint: bool
    stop: bool


class Loop:
    """Trains until the schedule is done, or for as long as this run may take.

    Args:
        trainer: does the steps.
        source: gives the batches.
        schedule, config: settings.
        facts: go into every checkpoint beside the loop's own.
        flops: of forward and backward for one of what the source counts.
        deadline: time.time() after which this run ends with a checkpoint, to be gone on with later.
    """

    def __init__(
        self,
        trainer: Trainer,
        source: Source,
        schedule: ScheduleConfig,
        config: LoopConfig,
        facts: dict[str, Any],
        flops: float,
        deadline: float | None = None,
    ) -> None:
        self._trainer, self._source = trainer, source
        self._schedule, self._config, self._facts, self._flops = schedule, config, facts, flops
        context = ray.train.get_context()
        self._leads, self._world = context.get_world_rank() == 0, context.get_world_size()
        self._device = next(trainer.model.parameters()).device
        self._seconds = 0.0
        self._held_out: dict[str, float | None] = {}
        self._deadline = deadline or float("inf")
        self._restore()

    @property
    def done(self) -> float:
        """Progress, 0 to 1."""
        return progress(self._schedule, self._trainer.steps, self._seconds)

    def run(self) -> None:
        """Train."""
        if self.done >= 1:
            return
        if not self._held_out:
            self._held_out["before"] = loss = self._source.evaluate(self._trainer)
            ray.train.report({"step": 0, "progress": 0.0, "seconds": 0.0, "held_out_loss": loss})
        self._begin()
        stop = False
        while self.done < 1 and not stop:
            self._step()
            if self._due():
                stop = self._act(self._tick())
        self._seconds = self._tick().seconds
        self._save(self._measure())

    def _begin(self) -> None:
        self._clock = self._logged = self._saved = time.monotonic()
        self._base = self._seconds
        self._saving = 0.0
        self._positions = 0
        self._total = torch.zeros((), dtype=torch.float64, device=self._device)
        self._steps = 0
        self._looked, self._look = (self._clock, self._trainer.steps), self._trainer.steps + 1

    def _step(self) -> None:
        batches, positions = self._source.draw(self._trainer.steps)
        self._total += self._trainer.step(batches, self.done)
        self._steps += 1
        self._positions += positions * self._world

    def _due(self) -> bool:
        """Whether all workers meet after this step."""
        steps, every = self._trainer.steps, self._config.checkpoint_steps
        return steps >= self._look or (every is not None and steps % every == 0)

    def _tick(self) -> Tick:
        """Rank 0 looks at the clock for all: all need the same learning rate and the same barriers."""
        now, every = time.monotonic(), self._config.checkpoint_steps
        by_time = now - self._saved >= max(self._config.checkpoint_seconds, self._saving / SAVE_SHARE)
        tick = Tick(
            seconds=self._base + now - self._clock,
            steps=self._steps_until_look(now),
            log=now - self._logged >= self._config.log_seconds,
            checkpoint=by_time if every is None else self._trainer.steps % every == 0,
            stop=time.time() >= self._deadline,
        )
        if self._world == 1:
            return tick
        values = torch.tensor(tick, dtype=torch.float64, device=self._device)
        dist.broadcast(values, 0)
        seconds, steps, *decisions = values.tolist()
        return Tick(seconds, steps, *map(bool, decisions))

    def _steps_until_look(self, now: float) -> int:
        """As many as take LOOK_SECONDS, if that is less than `tick_steps`."""
        then, steps = self._looked
        self._looked = now, self._trainer.steps
        pace = (now - then) / max(1, self._trainer.steps - steps)
        return min(self._config.tick_steps, max(1, int(LOOK_SECONDS / max(pace, 1e-9))))

    def _act(self, tick: Tick) -> bool:
        """Follow a tick; whether to stop."""
        self._seconds, self._look = tick.seconds, self._trainer.steps + int(tick.steps)
        if self.done >= 1 or tick.stop:
            return True
        if tick.checkpoint:
            self._save(self._measure())
        elif tick.log:
            ray.train.report(self._measure())
        return False

    def _measure(self) -> dict[str, float | None]:
        """Figures since the last report; waits for the device."""
        if self._world > 1:
            dist.all_reduce(self._total)
        loss = float(self._total) / (self._steps * self._world)
        if loss != loss:
            raise RuntimeError("the loss is not a number: lower the learning rates")
        now = time.monotonic()
        rate = self._positions / (now - self._logged)
        peak = _peak_flops(self._device)
        metrics = {
            "step": self._trainer.steps,
            "progress": self.done,
            "seconds": self._seconds,
            "loss": loss,
            "rate_factor": rate_factor(self._schedule, self._trainer.steps, self.done),
            self._source.unit + SPEED: rate,
            "mfu": rate * self._flops / (peak * self._world) if peak else None,
            "workers": self._world,
        }
        self._logged, self._positions, self._steps = now, 0, 0
        self._total.zero_()
        return metrics

    def _save(self, metrics: dict[str, float | None]) -> None:
        """Report with a checkpoint; rank 0 writes it."""
        began = time.monotonic()
        self._held_out["after"] = metrics["held_out_loss"] = self._source.evaluate(self._trainer)
        facts = self._facts | {
            "steps": self._trainer.steps,
            "seconds": self._seconds,
            "finished": self.done >= 1,
            "position": self._source.position,
            "held_out": self._held_out,
            "metrics": metrics,
        }
        with tempfile.TemporaryDirectory() as folder:
            if self._leads:
                save_state(Path(folder), self._trainer.state(), facts)
                ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
            else:
                ray.train.report(metrics)
        self._logged = self._saved = time.monotonic()
        self._saving = self._saved - began

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            tensors, facts = load_state(Path(folder), self._device)
        self._trainer.load_state(tensors, facts["steps"])
        self._source.seek(facts["position"])
        self._seconds, self._held_out = facts["seconds"], facts["held_out"]


def _peak_flops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
