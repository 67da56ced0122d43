"""What a cell sees: itself and its 6 or 26 neighbours, each through weights of its own.

A 3D convolution of the cross or of the cube. Cells lie in memory with their channels together, so that a
neighbour is one contiguous row: PyTorch's convolution takes that as channels last, and is the fastest for the
cube, and for the cross where matrix units make its 20 zeros cheap, unless outputs are many. Elsewhere the
cross is one product with gathered rows. They are 7 times the state: a few examples at a time are gathered,
multiplied while they are in the cache, and forgotten; the backward pass gathers again. A GPU's compiler
gathers in one kernel with what is done before, which takes half the time of the zeros; where a hidden layer
follows, `fused` does all in one.

Shapes: B examples, X, Y, Z cells along the axes, C channels, K = 7 or 27 cells seen, O outputs.
"""

from functools import lru_cache
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cellular.devices import has_amx

Size = tuple[int, int, int]
Neighbours = Literal[6, 26]
Padding = Literal["zeros", "replicate"]
Slices = tuple[slice, slice, slice, slice]

_CACHE_BYTES = 2 << 20  # of gathered rows at once, on a processor


class View(NamedTuple):
    """What cells see."""

    neighbours: Neighbours
    padding: Padding

    @property
    def cells(self) -> int:
        """K: the cell itself, then its neighbours."""
        return self.neighbours + 1


class _Copy(NamedTuple):
    """A block of cells and the block that it sees as its neighbour number `number`."""

    number: int
    target: Slices
    source: Slices


def offsets(neighbours: Neighbours) -> list[Size]:
    """Steps (dx, dy, dz) to the cells that are seen, the cell itself first."""
    steps = [(dx, dy, dz) for dx, dy, dz in product((-1, 0, 1), repeat=3)]
    radius = 1 if neighbours == 6 else 3
    near = [step for step in steps if sum(map(abs, step)) <= radius]
    return sorted(near, key=lambda step: (step != (0, 0, 0), step))


def gather_neighbours(state_BXYZC: Tensor, view: View) -> Tensor:
    """(B, X, Y, Z, K, C): each cell's neighbourhood, in the order of `offsets`.

    Beyond the border there are zeros, or the nearest cell of the lattice with padding "replicate".
    """
    batch, *size, channels = state_BXYZC.shape
    rows = state_BXYZC.new_zeros(batch, *size, view.cells, channels)
    return gather(state_BXYZC, _copies((size[0], size[1], size[2]), view), rows)


class Perceive(nn.Module):
    """A linear map of what each cell sees, without a bias: where all is zero the answer is.

    Args:
        channels: C.
        outputs: O.
        view: which cells are seen, and what is beyond the border.
    """

    def __init__(self, channels: int, outputs: int, view: View) -> None:
        super().__init__()
        self.view = view
        inputs = view.cells * channels
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)

    def forward(self, state_BXYZC: Tensor) -> Tensor:
        """(B, X, Y, Z, O) of (B, X, Y, Z, C), in the state's dtype, or autocast's."""
        state_BXYZC, weight = autocast(state_BXYZC, self.weight)
        cross = self.view.neighbours == 6
        if cross and state_BXYZC.is_cuda and torch.compiler.is_compiling():
            return F.linear(stack_neighbours(state_BXYZC, self.view), weight)
        if not gathers(state_BXYZC, len(weight), self.view):
            return convolve(state_BXYZC, weight, self.view)
        result: Tensor = _Gather.apply(state_BXYZC, weight, self.view)  # type: ignore[no-untyped-call]
        return result


def autocast(*operands: Tensor) -> tuple[Tensor, ...]:
    """In autocast's dtype where it is on: it does not look into functions of our own."""
    device = operands[0].device.type
    if not torch.is_autocast_enabled(device):
        return operands
    return tuple(operand.to(torch.get_autocast_dtype(device)) for operand in operands)


def stack_neighbours(state_BXYZC: Tensor, view: View) -> Tensor:
    """(B, X, Y, Z, K C): `gather_neighbours` in few operations, which a compiler makes one."""
    _, *size, _ = state_BXYZC.shape
    mode = "constant" if view.padding == "zeros" else "replicate"
    padded_BXYZC = F.pad(state_BXYZC.movedim(-1, 1), (1,) * 6, mode=mode).movedim(1, -1)
    parts = []
    for step in offsets(view.neighbours):
        seen = (slice(1 + move, 1 + move + length) for move, length in zip(step, size, strict=True))
        parts.append(padded_BXYZC[:, *seen])
    return torch.cat(parts, -1)


def convolve(state_BXYZC: Tensor, weight: Tensor, view: View) -> Tensor:
    """`Perceive` by PyTorch's convolution, the weights (O, K C) laid out as (O, C, 3, 3, 3)."""
    outputs, channels = len(weight), state_BXYZC.shape[-1]
    parts = weight.view(outputs, view.cells, channels).unbind(1)
    seen: dict[tuple[int, ...], Tensor] = dict(zip(offsets(view.neighbours), parts, strict=True))
    beyond = weight.new_zeros(outputs, channels)
    # No tensor of indices: one that comes from main memory would not go into a CUDA graph.
    taps = torch.stack([seen.get(step, beyond) for step in product((-1, 0, 1), repeat=3)], 1)
    kernel = taps.view(outputs, 3, 3, 3, channels).movedim(-1, 1)
    state_BCXYZ = state_BXYZC.movedim(-1, 1)
    if view.padding == "replicate":
        state_BCXYZ = F.pad(state_BCXYZ, (1,) * 6, mode="replicate")
    return F.conv3d(state_BCXYZ, kernel, padding=int(view.padding == "zeros")).movedim(1, -1)


def gathers(state_BXYZC: Tensor, outputs: int, view: View) -> bool:
    """Whether gathered rows are multiplied, rather than zeros too by a convolution."""
    return view.neighbours == 6 and not _zeros_are_cheap(state_BXYZC, outputs)


def _zeros_are_cheap(state_BXYZC: Tensor, outputs: int) -> bool:
    """Whether products of this dtype run on units for small matrices: tensor cores, or AMX.

    With AMX they cost more than gathering where a cell has more than twice as many outputs as channels.
    """
    if state_BXYZC.is_cuda:
        return state_BXYZC.dtype in (torch.bfloat16, torch.float16)
    few = outputs <= 2 * state_BXYZC.shape[-1]
    return few and state_BXYZC.dtype == torch.bfloat16 and has_amx()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state_BXYZC: Tensor, weight: Tensor, view: View) -> Tensor:
        ctx.save_for_backward(state_BXYZC, weight)
        ctx.view = view
        result = state_BXYZC.new_empty(*state_BXYZC.shape[:-1], len(weight))
        copies, rows = workspace(state_BXYZC, view)
        for some, target in zip(
            torch.split(state_BXYZC, len(rows)), torch.split(result, len(rows)), strict=True
        ):
            seen = gather(some, copies, rows[: len(some)])
            torch.mm(seen.view(-1, weight.shape[1]), weight.t(), out=target.view(-1, len(weight)))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        state_BXYZC, weight = ctx.saved_tensors
        of_state = torch.empty_like(state_BXYZC, memory_format=torch.contiguous_format)
        of_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        copies, rows = workspace(state_BXYZC, ctx.view)
        of_rows = torch.empty_like(rows)
        wholes = state_BXYZC, gradient, of_state
        parts = zip(*(torch.split(whole, len(rows)) for whole in wholes), strict=True)
        for some, of_result, target in parts:
            of_result = of_result.reshape(-1, len(weight))
            of_weight += gather_backward(of_result, some, weight, copies, rows, of_rows, target)
        return of_state, of_weight.to(weight.dtype), None


def workspace(state_BXYZC: Tensor, view: View) -> tuple[tuple[_Copy, ...], Tensor]:
    """What is copied where, and zeros for the rows of as many examples as fit the cache."""
    batch, *size, channels = state_BXYZC.shape
    shape = (*size, view.cells, channels)
    bytes_each = state_BXYZC.element_size() * torch.Size(shape).numel()
    fit = batch if state_BXYZC.is_cuda else min(batch, max(1, _CACHE_BYTES // bytes_each))
    return _copies((size[0], size[1], size[2]), view), state_BXYZC.new_zeros(fit, *shape)


def gather(state_BXYZC: Tensor, copies: tuple[_Copy, ...], rows_BXYZKC: Tensor) -> Tensor:
    """Fill rows; those beyond the border are left as they are."""
    for number, target, source in copies:
        rows_BXYZKC[..., number, :][target] = state_BXYZC[source]
    return rows_BXYZKC


def gather_backward(
    of_result_NO: Tensor,
    some_BXYZC: Tensor,
    weight_OV: Tensor,
    copies: tuple[_Copy, ...],
    rows_BXYZKC: Tensor,
    of_rows_BXYZKC: Tensor,
    target_BXYZC: Tensor,
) -> Tensor:
    """(O, V) gradient of the weight of a product with some gathered states; theirs goes to the target.

    Rows are a workspace for as many examples or more, and another like it.
    """
    rows, of_rows = rows_BXYZKC[: len(some_BXYZC)], of_rows_BXYZKC[: len(some_BXYZC)]
    seen_NV = gather(some_BXYZC, copies, rows).view(-1, weight_OV.shape[1])
    torch.mm(of_result_NO, weight_OV, out=of_rows.view(seen_NV.shape))
    _scatter(of_rows, copies, target_BXYZC)
    return of_result_NO.t() @ seen_NV


def _scatter(rows_BXYZKC: Tensor, copies: tuple[_Copy, ...], state_BXYZC: Tensor) -> None:
    """The transpose of `gather`; the first copy is of the cell itself, and sets."""
    state_BXYZC.copy_(rows_BXYZKC[..., 0, :])
    for number, target, source in copies[1:]:
        state_BXYZC[source] += rows_BXYZKC[..., number, :][target]


@lru_cache
def _copies(size: Size, view: View) -> tuple[_Copy, ...]:
    """All blocks: one a neighbour, and those of the border with padding "replicate"."""
    found = []
    for number, step in enumerate(offsets(view.neighbours)):
        axes = [_blocks(move, length, view.padding) for move, length in zip(step, size, strict=True)]
        for (tx, sx), (ty, sy), (tz, sz) in product(*axes):
            found.append(_Copy(number, (slice(None), tx, ty, tz), (slice(None), sx, sy, sz)))
    return tuple(found)


def _blocks(move: int, length: int, padding: Padding) -> list[tuple[slice, slice]]:
    """(cells, what they see) along one axis."""
    first, last = slice(0, 1), slice(length - 1, length)
    inner = (slice(max(0, -move), length - max(0, move)), slice(max(0, move), length + min(0, move)))
    if move == 0 or padding == "zeros":
        return [inner]
    border = first if move < 0 else last
    return [inner, (border, border)]
