"""Optimiser steps: fp32 weights are trained through a copy in the precision that the device likes."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cellular.training.config import OptimizerConfig, ScheduleConfig
from cellular.training.ema import WeightAverage
from cellular.training.optimizer import Optimizers
from cellular.training.schedule import rate_factor

Weights = dict[str, Tensor]


class Pruner(Protocol):
    """Sets weights to zero in the course of a training."""

    def step(self, done: float) -> None:
        """Change the weights after an optimiser step at a progress of `done`."""

    def apply(self, weights: Mapping[str, Tensor]) -> None:
        """Change other weights of the same names, such as their average."""


class _Source:
    """Weights that the copy can be taken from."""

    def __init__(
        self, weights: Weights, rounding: Callable[[Weights], AbstractContextManager[None]] | None
    ) -> None:
        self.tensors = list(weights.values())
        self.rounded = rounding(weights) if rounding else nullcontext()


class _Loss(nn.Module):
    """An objective with its model: what DistributedDataParallel can wrap."""

    def __init__(self, model: nn.Module, objective: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._objective = objective

    def forward(self, batch: Any) -> Tensor:
        return self._objective(self.model, batch)

    def __call__(self, batch: Any) -> Tensor:  # typed, where nn.Module's is not
        loss: Tensor = super().__call__(batch)
        return loss


class Trainer:
    """Trains a model; with torch.distributed up, together with the other workers.

    Forward and backward run on a copy of the weights, once for each use of a layer, and the fp32 weights get
    the copy's gradients: no cast a layer, no autocast, and any kernel for that precision fits.

    Args:
        model: on its device, fp32; the parameters that require gradients are trained, in place.
        objective: (copy of the model, batch) → scalar loss.
        matrices: see `Optimizers`.
        optimizer, schedule: settings.
        dtype: of the copy.
        prepare: changes the copy before its first use, for example compiles its methods.
        pruner: changes the fp32 weights after each step.
        rounding: of some weights, a context in which they are rounded in place; the copy is taken inside, so
            that gradients are those of the rounded weights and pass straight through to the others.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[[Any, Any], Tensor],
        matrices: Mapping[str, int],
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        *,
        dtype: torch.dtype = torch.float32,
        prepare: Callable[[Any], None] | None = None,
        pruner: Pruner | None = None,
        rounding: Callable[[Weights], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.model, self._schedule = model, schedule
        self._pruner = pruner
        self.steps = 0
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        for weight in trained.values():
            weight.grad = torch.zeros_like(weight)
        self._weights = trained
        self._optimizers = Optimizers(trained, matrices, optimizer)
        self._average = WeightAverage(list(trained.values()), optimizer.average_steps)
        self._loss = _Loss(copy.deepcopy(model).to(dtype), objective)
        self._copies = dict(self._loss.model.named_parameters())
        weights = {name: weight.data for name, weight in model.named_parameters()}
        self._own = _Source(weights, rounding)
        self._averaged = _Source({**weights, **self.averages()}, rounding)
        self._refresh(self._own)
        if prepare:
            prepare(self._loss.model)
        self._parallel = _parallel(self._loss)

    def step(self, batches: Sequence[Any], done: float) -> Tensor:
        """One optimiser step over the mean gradient of some batches, at a progress of `done`.

        Returns:
            This worker's mean loss, a scalar on the device: reading it waits for the step.
        """
        loss = self.gradients(batches)
        self._optimizers.step(rate_factor(self._schedule, self.steps, done))
        self.steps += 1
        if self._pruner:
            self._pruner.step(done)
        self._average.update(self.steps)
        self._refresh(self._own)
        return loss

    def gradients(self, batches: Sequence[Any]) -> Tensor:
        """Leave the mean gradient of the batches of all workers in the weights; their mean loss here."""
        self._loss.zero_grad()
        losses = []
        for number, batch in enumerate(batches, start=1):
            with self._exchange(last=number == len(batches)):
                loss = self._parallel(batch) / len(batches)
                loss.backward()
            losses.append(loss.detach())
        torch._foreach_copy_(_gradients(self.model), _gradients(self._loss.model))
        return torch.stack(losses).sum()

    def _exchange(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are summed by each worker, and exchanged after the last batch of a step."""
        if last or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        waiting: AbstractContextManager[None] = self._parallel.no_sync()
        return waiting

    @torch.no_grad()
    def _refresh(self, source: "_Source") -> None:
        """Bring the copy up to date."""
        with source.rounded:
            torch._foreach_copy_(list(self._copies.values()), source.tensors)

    def evaluate(self, batches: Any, count: Callable[[Any], Tensor]) -> float | None:
        """The averaged weights' mean loss over all workers' batches, weighted by `count`; None of none."""
        if self._pruner:
            self._pruner.apply(dict(zip(self._copies, self._averaged.tensors, strict=True)))
        self._refresh(self._averaged)
        totals = torch.zeros(2, dtype=torch.float64, device=next(self.model.parameters()).device)
        for batch in batches:
            weight = count(batch).double()
            totals += torch.stack([self._loss(batch).detach().double() * weight, weight])
        self._refresh(self._own)
        if dist.is_initialized():
            dist.all_reduce(totals)
        return float(totals[0] / totals[1]) if totals[1] else None

    def averages(self) -> Weights:
        """The averaged weights of what is trained, by name."""
        return dict(zip(self._weights, self._average.tensors, strict=True))

    def averaged(self) -> nn.Module:
        """A copy of the model with the averaged weights, fp32."""
        model = copy.deepcopy(self.model)
        model.load_state_dict({**model.state_dict(), **self.averages()})
        if self._pruner:
            self._pruner.apply({name: weight.data for name, weight in model.named_parameters()})
        return model

    def state(self) -> dict[str, Weights]:
        """Every tensor that a resumed training needs."""
        return {
            "weights": dict(self.model.state_dict()),
            "average": self.averages(),
            "optimizer": self._optimizers.state(),
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Weights], steps: int) -> None:
        """Go on from a state that was saved after so many steps."""
        self.model.load_state_dict(state["weights"])
        for name, tensor in self.averages().items():
            tensor.copy_(state["average"][name])
        self._optimizers.load_state(state["optimizer"])
        self.steps = steps
        self._refresh(self._own)


def _parallel(loss: nn.Module) -> nn.Module:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return loss
    return DistributedDataParallel(loss)


def _gradients(model: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in model.parameters() if weight.grad is not None]
