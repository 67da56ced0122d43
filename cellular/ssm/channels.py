"""The scan with a decay for every channel and state component: Gu & Dao 2023, a few positions at a time.

This scan is no matrix product: its (B, L, D, N) states are bound by memory. In C they never leave the cache:
see `native`. Else blocks of K positions. Only the state before each block is stored; the backward pass
computes the block's states again, as the paper's kernel does.

Shapes are those of `reference`, but positions first, and channels last in the states: lanes are channels.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cellular.ssm.native import has_native, native_channels
from cellular.ssm.reference import state_dtype


def selective_scan(
    x_BLD: Tensor,
    delta_BLD: Tensor,
    a_DN: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BDN: Tensor | None = None,
    *,
    chunk: int = 8,
    compiled: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """`selective_scan_ref` in constant memory a block: outputs (B, L, D) of x's dtype, last state (B, D, N).

    Computed in float32, or float64 if x is, under autocast too. Differentiable once, by every argument.

    Args:
        chunk: positions of a block, where it is not compiled.
        compiled: in C, on a processor; None: where there is a C compiler.

    Raises:
        CellularError: it is to be compiled, and there is no C compiler.
    """
    kept, length = state_dtype(x_BLD), x_BLD.shape[1]
    if state_BDN is None:
        state_BDN = x_BLD.new_zeros(len(x_BLD), *a_DN.shape)
    a_ND, state_BND = a_DN.to(kept).T.contiguous(), state_BDN.to(kept).mT.contiguous()
    if has_native(x_BLD, compiled):
        x, delta, b, c = (part.to(kept) for part in (x_BLD, delta_BLD, b_BLN, c_BLN))
        y_BLD, state_BND = native_channels(x, delta, a_ND, b, c, state_BND)
        return y_BLD.to(x_BLD.dtype), state_BND.mT
    x_LBD, delta_LBD, b_LBN, c_LBN = (
        _whole_blocks(part.to(kept), chunk) for part in (x_BLD, delta_BLD, b_BLN, c_BLN)
    )
    with torch.autocast(x_BLD.device.type, enabled=False):
        y_LBD, state_BND = _Scan.apply(  # type: ignore[no-untyped-call]
            x_LBD, delta_LBD, b_LBN, c_LBN, a_ND, state_BND, chunk
        )
    y_BLD = (y_LBD[:length] if length % chunk else y_LBD).transpose(0, 1)
    return y_BLD.to(x_BLD.dtype), state_BND.mT


def _whole_blocks(part_BLX: Tensor, chunk: int) -> Tensor:
    """Positions first. Those that fill up the last block neither enter a state nor decay it: Δ is 0."""
    part_LBX, missing = part_BLX.transpose(0, 1), -part_BLX.shape[1] % chunk
    return F.pad(part_LBX, [0, 0, 0, 0, 0, missing]) if missing else part_LBX.contiguous()


class _Block(NamedTuple):
    """The inputs of K positions."""

    x_KBD: Tensor
    delta_KBD: Tensor
    b_KBN: Tensor
    c_KBN: Tensor


def _states(block: _Block, a_ND: Tensor, state_BND: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The state before the block and after each position, and the decay at each."""
    states, decays = [state_BND], []
    for x_BD, delta_BD, b_BN, _ in zip(*block, strict=True):
        decays.append((delta_BD[:, None] * a_ND).exp())
        states.append(decays[-1] * states[-1] + (delta_BD * x_BD)[:, None] * b_BN[:, :, None])
    return states, decays


def _advance(block: _Block, a_ND: Tensor, state_BND: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (K, B, D), and the state after the block."""
    states, _ = _states(block, a_ND, state_BND)
    outputs = [(state * c_BN[:, :, None]).sum(1) for state, c_BN in zip(states[1:], block.c_KBN, strict=True)]
    return torch.stack(outputs), states[-1]


def _retreat(
    block: _Block, a_ND: Tensor, state_BND: Tensor, d_y_KBD: Tensor, d_state_BND: Tensor
) -> tuple[_Block, Tensor, Tensor]:
    """Gradients by the block, by `a` for each text (B, N, D), and by the state before the block."""
    states, decays = _states(block, a_ND, state_BND)
    d_positions, d_a_BND = [], torch.zeros_like(state_BND)
    for position in reversed(range(len(decays))):
        x_BD, delta_BD, b_BN, c_BN = (part[position] for part in block)
        d_y_BD = d_y_KBD[position]
        d_state_BND = d_state_BND + d_y_BD[:, None] * c_BN[:, :, None]
        d_c_BN = (states[position + 1] * d_y_BD[:, None]).sum(2)
        d_b_BN = (d_state_BND * (delta_BD * x_BD)[:, None]).sum(2)
        d_moved_BD = (d_state_BND * b_BN[:, :, None]).sum(1)  # by Δ x
        d_state_BND = d_state_BND * decays[position]
        d_rate_BND = d_state_BND * states[position]  # by Δ A
        d_delta_BD = d_moved_BD * x_BD + (d_rate_BND * a_ND).sum(1)
        d_a_BND = d_a_BND + d_rate_BND * delta_BD[:, None]
        d_positions.append((d_moved_BD * delta_BD, d_delta_BD, d_b_BN, d_c_BN))
    stacked = (torch.stack(parts[::-1]) for parts in zip(*d_positions, strict=True))
    return _Block(*stacked), d_a_BND, d_state_BND


class _Scan(torch.autograd.Function):
    """The scan in blocks, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x_LBD: Tensor,
        delta_LBD: Tensor,
        b_LBN: Tensor,
        c_LBN: Tensor,
        a_ND: Tensor,
        state_BND: Tensor,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        inputs = [x_LBD, delta_LBD, b_LBN, c_LBN]
        outputs, before = [], []
        for block in _blocks(inputs, chunk):
            before.append(state_BND)
            y_KBD, state_BND = _advance(block, a_ND, state_BND)
            outputs.append(y_KBD)
        ctx.chunk = chunk
        ctx.save_for_backward(*inputs, a_ND, *before)
        return torch.cat(outputs), state_BND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y_LBD: Tensor, d_state_BND: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, a_ND = ctx.saved_tensors[:5]
        before = ctx.saved_tensors[5:]
        blocks, d_y = _blocks(inputs, ctx.chunk), torch.split(d_y_LBD.contiguous(), ctx.chunk)
        d_blocks, d_a_ND, d_state_BND = [], torch.zeros_like(a_ND), d_state_BND.contiguous()
        for block, d_y_KBD, state_BND in reversed(list(zip(blocks, d_y, before, strict=True))):
            d_block, d_a_BND, d_state_BND = _retreat(block, a_ND, state_BND, d_y_KBD, d_state_BND)
            d_blocks.append(d_block)
            d_a_ND += d_a_BND.sum(0)
        d_inputs = (torch.cat(parts[::-1]) for parts in zip(*d_blocks, strict=True))
        return *d_inputs, d_a_ND, d_state_BND, None


def _blocks(inputs: list[Tensor], chunk: int) -> list[_Block]:
    return [_Block(*parts) for parts in zip(*(torch.split(part, chunk) for part in inputs), strict=True)]
