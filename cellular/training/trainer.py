"""Optimiser steps: fp32 weights are trained through a copy in the precision that the device likes."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cellular.training.config import OptimizerConfig, ScheduleConfig
from cellular.training.ema import WeightAverage
from cellular.training.graphs import Graphed
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
        self.weights, self.tensors = weights, list(weights.values())
        self.rounded = rounding(weights) if rounding else nullcontext()


class Trainer:
    """Trains a model; with torch.distributed up, together with the other workers.

    Forward and backward run on a copy of the weights, once for each use of a layer: no cast a layer, no
    autocast, and any kernel for that precision fits. The gradients lie in one fp32 buffer, which the workers
    sum up in one exchange. That is what DistributedDataParallel does, without its hooks: with a model so
    small they would take longer than the exchange, and they do not go into a CUDA graph.

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
        graphs: replay passes and steps as CUDA graphs: an objective must not wait for the device, and batches
            are to be tuples of tensors of few shapes.

    Attributes:
        copy: the weights as they are in use, in `dtype`.
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
        graphs: bool = False,
    ) -> None:
        self.model, self.steps = model, 0
        self._objective, self._schedule, self._pruner = objective, schedule, pruner
        self._world = dist.get_world_size() if dist.is_initialized() else 1
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._gradient = _flat_gradient(list(self._weights.values()))
        self._gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
        self._loss = torch.zeros((), device=self._gradient.device)
        self._optimizers = Optimizers(self._weights, matrices, optimizer)
        self._average = WeightAverage(list(self._weights.values()), optimizer.average_steps)
        self.copy = copy.deepcopy(model).to(dtype)
        weights = {name: weight.data for name, weight in model.named_parameters()}
        self._own = _Source(weights, rounding)
        self._averaged = _Source({**weights, **self.averages()}, rounding)
        self._refresh(self._own)
        if prepare:
            prepare(self.copy)
        self._add: Callable[[Any], None] = Graphed(self._add_gradient) if graphs else self._add_gradient
        self._update: Callable[[Any], None] = self._optimise
        if graphs and not pruner and not rounding:
            self._update = Graphed(self._optimise)

    def step(self, batches: Sequence[Any], done: float) -> Tensor:
        """One optimiser step over the mean gradient of some batches, at a progress of `done`.

        Returns:
            This worker's mean loss, a scalar on the device, until the next step.
        """
        self.gradients(batches)
        self._optimizers.set_factor(rate_factor(self._schedule, self.steps, done))
        self.steps += 1
        self._update(())
        if self._pruner:
            self._pruner.step(done)
            self._refresh(self._own)
        self._average.update(self.steps)
        return self._loss

    def gradients(self, batches: Sequence[Any]) -> Tensor:
        """Leave the mean gradient of the batches of all workers in the weights; their mean loss here."""
        self._gradient.zero_()
        self._loss.zero_()
        for batch in batches:
            self._add(batch)
        self._loss.div_(len(batches))
        self._gradient.div_(len(batches) * self._world)
        if self._world > 1:
            dist.all_reduce(self._gradient)
        return self._loss

    def _add_gradient(self, batch: Any) -> None:
        loss = self._objective(self.copy, batch)
        names = dict(self.copy.named_parameters())
        found = torch.autograd.grad(loss, [names[name] for name in self._weights])
        torch._foreach_add_(self._gradients, list(found))
        self._loss.add_(loss.detach())

    def _optimise(self, _: Any) -> None:
        self._optimizers.step()
        self._refresh(self._own)

    @torch.no_grad()
    def _refresh(self, source: "_Source") -> None:
        """Bring the copy up to date."""
        with source.rounded:
            torch._foreach_copy_(list(self.copy.parameters()), source.tensors)

    def evaluate(self, batches: Iterable[Any], count: Callable[[Any], Tensor]) -> float | None:
        """The averaged weights' mean loss over all workers' batches, weighted by `count`; None of none."""
        if self._pruner:
            self._pruner.apply(self._averaged.weights)
        self._refresh(self._averaged)
        self.copy.eval()
        totals = torch.zeros(2, dtype=torch.float64, device=self._gradient.device)
        for batch in batches:
            weight = count(batch).double()
            totals += torch.stack([self._objective(self.copy, batch).detach().double() * weight, weight])
        self.copy.train()
        self._refresh(self._own)
        if self._world > 1:
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


def _flat_gradient(weights: Sequence[nn.Parameter]) -> Tensor:
    """One buffer of zeros, whose parts are the gradients of the weights."""
    buffer = torch.zeros(sum(weight.numel() for weight in weights), device=weights[0].device)
    for weight, part in zip(
        weights, torch.split(buffer, [weight.numel() for weight in weights]), strict=True
    ):
        weight.grad = part.view_as(weight)
    return buffer
