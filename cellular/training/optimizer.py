"""Muon for the matrices, fused AdamW for everything else.

Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks; Loshchilov & Hutter 2019,
Decoupled weight decay regularization.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cellular.training.config import OptimizerConfig

_MOMENTUM = 0.95
_BETAS = (0.9, 0.98)


class Optimizers:
    """Both optimisers behind one step.

    Args:
        weights: name → parameter; `grad` must be there already, and stay the same tensor, because matrices
            that are several in one (queries, keys and values) are optimised by views of their parts.
        matrices: names of the ones for Muon, and how many square parts each consists of, stacked by rows.
        config: learning rates and decays.
    """

    def __init__(
        self, weights: Mapping[str, nn.Parameter], matrices: Mapping[str, int], config: OptimizerConfig
    ) -> None:
        parts = [
            part
            for name, count in matrices.items()
            if name in weights
            for part in _split(weights[name], count)
        ]
        others = [weight for name, weight in weights.items() if name not in matrices]
        self._optimizers: list[torch.optim.Optimizer] = []
        if parts:
            self._optimizers.append(
                torch.optim.Muon(
                    parts, config.matrix_rate, config.matrix_decay, _MOMENTUM, adjust_lr_fn="original"
                )
            )
        if others:
            self._optimizers.append(
                torch.optim.AdamW(others, config.rate, _BETAS, weight_decay=config.decay, fused=True)
            )
        self._rates = [group["lr"] for group in self._groups()]

    def _groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self._optimizers:
            yield from optimizer.param_groups

    def step(self, factor: float) -> None:
        """Change the weights by their gradients, at `factor` times the learning rates."""
        for group, rate in zip(self._groups(), self._rates, strict=True):
            group["lr"] = factor * rate
        for optimizer in self._optimizers:
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the optimisers' state, named so that `load_state` finds its place."""
        return {
            f"{type(optimizer).__name__}.{number}.{name}": value
            for optimizer in self._optimizers
            for number, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that was saved."""
        for optimizer in self._optimizers:
            state: dict[int, dict[str, Tensor]] = {}
            for path, tensor in tensors.items():
                kind, number, name = path.split(".", 2)
                if kind == type(optimizer).__name__:
                    state.setdefault(int(number), {})[name] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})


def _split(weight: nn.Parameter, count: int) -> Iterator[nn.Parameter]:
    """Parameters that share memory and gradient with the parts of `weight`."""
    assert weight.grad is not None
    for part, gradient in zip(weight.data.chunk(count), weight.grad.chunk(count), strict=True):
        parameter = nn.Parameter(part)
        parameter.grad = gradient
        yield parameter
