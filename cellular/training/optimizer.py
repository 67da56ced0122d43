"""Muon for the matrices, fused AdamW for everything else.

Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks; Loshchilov & Hutter 2019,
Decoupled weight decay regularization.

torch.optim.Muon gives the same update with many times the launches, and cannot be part of a CUDA graph: here
matrices of similar shapes are one batch, and the rate is a tensor. A test holds the two to each other.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from cellular.devices import fast_dtype
from cellular.errors import CellularError
from cellular.training.config import OptimizerConfig

_MOMENTUM = 0.95
_BETAS = (0.9, 0.98)
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_SHARE = 1 / 3  # on a GPU, where a launch takes longer than products with zeros; elsewhere shapes are equal


class Optimizers:
    """Both optimisers behind one step, which may be captured as a CUDA graph.

    Args:
        weights: name → parameter; `grad` must be there already, and stay the same tensor.
        matrices: names of the ones for Muon, and how many parts each consists of, stacked by rows: queries,
            keys and values are three matrices.
        config: learning rates and decays.
    """

    def __init__(
        self, weights: Mapping[str, nn.Parameter], matrices: Mapping[str, int], config: OptimizerConfig
    ) -> None:
        chosen = {name: count for name, count in matrices.items() if name in weights}
        others = [weight for name, weight in weights.items() if name not in matrices]
        device = next(iter(weights.values())).device
        parts = [part for name, count in chosen.items() for part in _parts(weights[name], count)]
        self._rates = {"muon": config.matrix_rate, "adamw": config.rate}
        self._current = {name: torch.tensor(rate, device=device) for name, rate in self._rates.items()}
        share = _SHARE if device.type == "cuda" else 1.0
        self._muon = Muon(parts, self._current["muon"], config.matrix_decay, share)
        self._adamw = torch.optim.AdamW(
            others or [nn.Parameter(torch.zeros(1, device=device))],
            self._current["adamw"],
            _BETAS,
            weight_decay=config.decay,
            fused=True,
            capturable=device.type == "cuda",
        )

    def set_factor(self, factor: float) -> None:
        """Use `factor` times the learning rates from the next step on."""
        for name, rate in self._rates.items():
            self._current[name].fill_(factor * rate)

    def step(self) -> None:
        """Change the weights by their gradients."""
        self._muon.step()
        self._adamw.step()

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the optimisers' state, named so that `load_state` finds its place."""
        muon = {f"muon.{number}": tensor for number, tensor in enumerate(self._muon.momenta)}
        return muon | {
            f"adamw.{number}.{name}": value
            for number, values in self._adamw.state_dict()["state"].items()
            for name, value in values.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that was saved, on a device of any kind.

        Raises:
            CellularError: it has other matrices.
        """
        for number, momentum in enumerate(self._muon.momenta):
            saved = tensors.get(f"muon.{number}")
            if saved is None or saved.shape != momentum.shape:
                raise CellularError("another release began this training: begin it again with --restart")
            momentum.copy_(saved)
        state: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for path, tensor in tensors.items():
            kind, *rest = path.split(".")
            if kind == "adamw":
                state[int(rest[0])][rest[1]] = tensor
        groups = self._adamw.state_dict()["param_groups"]
        self._adamw.load_state_dict({"state": dict(state), "param_groups": groups})
        for group in self._adamw.param_groups:
            group["lr"] = self._current["adamw"]  # loading put a copy there


class Muon:
    """Steps along the orthogonalised momentum, times √(rows / columns) where there are more rows.

    Args:
        weights: matrices with `grad`; views will do.
        rate: scalar on their device, read at each step.
        decay: of the weights, times the rate.
        share: of the numbers of a batch's largest matrix that another needs to be in that batch.
    """

    def __init__(self, weights: Sequence[Tensor], rate: Tensor, decay: float, share: float = 1.0) -> None:
        self._rate, self._decay = rate, decay
        self._stacks = [_Stack(chosen, rate.device) for chosen in _alike(weights, share)]
        pairs = (pair for stack in self._stacks for pair in zip(stack.weights, stack.momenta, strict=True))
        of = {id(weight): momentum for weight, momentum in pairs}
        self.momenta = [of[id(weight)] for weight in weights]

    @torch.no_grad()
    def step(self) -> None:
        """Change the weights."""
        for stack in self._stacks:
            given = [_flat(weight.grad) for weight in stack.weights if weight.grad is not None]
            torch._foreach_copy_(stack.gradients, given)
            stack.momentum.lerp_(stack.gradient, 1 - _MOMENTUM)
            update = orthogonalise(stack.gradient.lerp(stack.momentum, _MOMENTUM)).float()
            update *= -self._rate * stack.scales
            torch._foreach_mul_(stack.weights, 1 - self._rate * self._decay)
            torch._foreach_add_([_flat(weight) for weight in stack.weights], stack.parts(update))


class _Stack:
    """Matrices as one (N, R, C) batch, with zeros beyond the smaller ones, which the iteration leaves."""

    def __init__(self, weights: list[Tensor], device: torch.device) -> None:
        self.weights = weights
        self._shapes = [_flat(weight).shape for weight in weights]
        shape = [len(weights), *(max(sides) for sides in zip(*self._shapes, strict=True))]
        self.gradient, self.momentum = torch.zeros(2, *shape, device=device)
        self.gradients, self.momenta = self.parts(self.gradient), self.parts(self.momentum)
        scales = [max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5 for weight in weights]
        self.scales = torch.tensor(scales).view(-1, 1, 1).to(device)

    def parts(self, stack: Tensor) -> list[Tensor]:
        """The views of such a batch in which the matrices lie."""
        return [part[:rows, :columns] for part, (rows, columns) in zip(stack, self._shapes, strict=True)]


def _alike(weights: Sequence[Tensor], share: float) -> list[list[Tensor]]:
    """Batches of what fits into the first of each, and has that share of its numbers or more."""
    batches: list[list[Tensor]] = []
    for weight in sorted(weights, key=Tensor.numel, reverse=True):
        for batch in batches:
            sides = zip(_flat(weight).shape, _flat(batch[0]).shape, strict=True)
            if all(own <= most for own, most in sides) and weight.numel() >= share * batch[0].numel():
                batch.append(weight)
                break
        else:
            batches.append([weight])
    return batches


def orthogonalise(matrices: Tensor) -> Tensor:
    """(N, R, C) with R ≤ C: about U Vᵀ of each U S Vᵀ, by five Newton-Schulz iterations.

    In bfloat16 where there are instructions for it. A processor without them needs a hundred times as long.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(fast_dtype(matrices.device))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _flat(matrix: Tensor) -> Tensor:
    """A view with no more rows than columns."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def _parts(weight: nn.Parameter, count: int) -> Iterator[Tensor]:
    """Views of the parts of `weight`, each with its part of the gradient."""
    assert weight.grad is not None
    for part, gradient in zip(weight.data.chunk(count), weight.grad.chunk(count), strict=True):
        part.grad = gradient
        yield part
