"""A Mamba block: Gu & Dao 2023's gated block with the scan, heads and second norm of Mamba-2 (Dao & Gu 2024).

    normed          = RMS norm of the input
    gate, mixed, Δ  = normed W_in                     mixed is x, B and C side by side
    x, B, C         = SiLU(causal depthwise convolution of mixed)
    y               = selective scan(x, softplus(Δ), A, B, C) + skip x
    output          = RMS norm(y SiLU(gate)) W_out     without a residual: that is the caller's to add

Shapes: B texts, L positions, W width, I inner width = H heads of P channels, N state components, K taps
of the convolution, G = I + 2 N channels that it mixes.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cellular.ssm.duality import ssd_scan
from cellular.ssm.fused import fused_mix, mixes

_EPSILON = 1e-6
_DELTA_RANGE = (0.001, 0.1)  # of untrained steps, log-uniform, as in the paper's code


class MambaState(NamedTuple):
    """What a block remembers of the positions before; of one size, however many they were."""

    mixed_BKG: Tensor  # the convolution's last K - 1 inputs
    scan_BHPN: Tensor


class MambaBlock(nn.Module):
    """(B, L, width) to the same shape; position t reads positions up to t alone.

    `forward` takes a whole sequence, `advance` one segment after another, and `step` one position after
    another: the outputs are the same. ValueError if `expansion * width` is no multiple of `head_width`.
    """

    def __init__(
        self, width: int, state: int = 16, *, expansion: int = 2, head_width: int = 32, taps: int = 4
    ) -> None:
        super().__init__()
        inner = expansion * width
        if inner % head_width:
            raise ValueError(
                f"need {expansion} * width as a multiple of head_width {head_width}, not {inner}"
            )
        self.inner, self.state, self.heads = inner, state, inner // head_width
        mixed = inner + 2 * state
        self.norm = nn.RMSNorm(width, eps=_EPSILON)
        self.project_in = nn.Linear(width, inner + mixed + self.heads, bias=False)
        self.taps_KG = nn.Parameter(torch.empty(taps, mixed).uniform_(-1, 1) / math.sqrt(taps))
        self.taps_bias_G = nn.Parameter(torch.zeros(mixed))
        self.delta_bias_H = nn.Parameter(_untrained_delta_bias(self.heads))
        self.log_rate_H = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.skip_H = nn.Parameter(torch.ones(self.heads))
        self.gated_norm = nn.RMSNorm(inner, eps=_EPSILON)
        self.project_out = nn.Linear(inner, width, bias=False)

    def start(self, batch: int) -> MambaState:
        """The state before any position."""
        taps, mixed = self.taps_KG.shape
        return MambaState(
            self.taps_KG.new_zeros(batch, taps - 1, mixed),
            self.taps_KG.new_zeros(batch, self.heads, self.inner // self.heads, self.state),
        )

    def forward(self, x_BLW: Tensor, present_BL: Tensor | None = None) -> Tensor:
        """Outputs (B, L, W) of whole sequences.

        Where bool `present_BL` is False a position enters no state: in front of a sequence, such positions
        change nothing behind them. What comes out at them has no meaning.
        """
        return self.advance(x_BLW, None, present_BL)[0]

    def step(self, x_BW: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """The output (B, W) of one further position, and the state after it."""
        y_BLW, state = self.advance(x_BW[:, None], state)
        return y_BLW[:, 0], state

    def advance(
        self, x_BLW: Tensor, state: MambaState | None, present_BL: Tensor | None = None
    ) -> tuple[Tensor, MambaState]:
        """Outputs (B, L, W) of a further segment of at least one position, and the state after it.

        Without a state it is the first.
        """
        gate_BLI, mixed_BLG, delta_BLH = self._project(self.norm(x_BLW))
        if present_BL is not None:
            mixed_BLG = mixed_BLG * present_BL[..., None]
        delta_BLH = F.softplus(delta_BLH + self.delta_bias_H)
        if present_BL is not None:  # a step of 0 neither adds to the state nor lets it decay
            delta_BLH = delta_BLH * present_BL[..., None]
        y_BLHP, state = self._mix(mixed_BLG, delta_BLH, state)
        y_BLI = y_BLHP.flatten(2)
        y_BLW = self.project_out(self.gated_norm(y_BLI * F.silu(gate_BLI)))
        return y_BLW, state

    def _project(self, normed_BLW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gate (B, L, I), what is mixed (B, L, G) and Δ (B, L, H) before its bias: parts of one product."""
        weight: Tensor = self.project_in.weight
        if weight.is_cuda:  # rows whose length is no multiple of 16 keep products and loads off the fast ways
            weight = F.pad(weight, (0, 0, 0, -len(weight) % 16))
        widths = [self.inner, self.taps_KG.shape[1], self.heads]
        parts = torch.split(F.linear(normed_BLW, weight), [*widths, len(weight) - sum(widths)], -1)
        return parts[0], parts[1], parts[2]

    def _mix(
        self, mixed_BLG: Tensor, delta_BLH: Tensor, state: MambaState | None
    ) -> tuple[Tensor, MambaState]:
        """Outputs (B, L, H, P) of convolution, SiLU, scan and skip, and the state after them."""
        taps_KG, rate_H = self.taps_KG, -self.log_rate_H.exp()
        if state is None and mixes(mixed_BLG, taps_KG):
            of_scan = delta_BLH, rate_H, self.skip_H, self.inner // self.heads
            y_BLHP, last_BHPN = fused_mix(mixed_BLG, taps_KG, self.taps_bias_G, *of_scan)
            missing = max(0, len(taps_KG) - 1 - mixed_BLG.shape[1])
            mixed_BKG = F.pad(mixed_BLG[:, 1 - len(taps_KG) :], (0, 0, missing, 0))
            return y_BLHP, MambaState(mixed_BKG, last_BHPN)
        before_BKG, before_BHPN = state or (None, None)
        x_BLI, b_BLN, c_BLN, mixed_BKG = self._convolve(mixed_BLG, before_BKG)
        x_BLHP = torch.unflatten(x_BLI, -1, (self.heads, -1))
        arguments = x_BLHP, delta_BLH, rate_H, b_BLN, c_BLN, before_BHPN
        y_BLHP, last_BHPN = ssd_scan(*arguments)
        return y_BLHP + self.skip_H[:, None] * x_BLHP, MambaState(mixed_BKG, last_BHPN)

    def _convolve(
        self, mixed_BLG: Tensor, before_BKG: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, L, I), B and C (B, L, N), and the last inputs (B, K - 1, G)."""
        if before_BKG is None:
            inputs_BTG = F.pad(mixed_BLG, (0, 0, len(self.taps_KG) - 1, 0))
        else:
            inputs_BTG = torch.cat([before_BKG.to(mixed_BLG), mixed_BLG], 1)
        convolved_BLG = self._mix_taps(inputs_BTG, mixed_BLG.shape[1])
        x_BLI, b_BLN, c_BLN = torch.split(F.silu(convolved_BLG), [self.inner, self.state, self.state], -1)
        return x_BLI, b_BLN, c_BLN, inputs_BTG[:, mixed_BLG.shape[1] :]

    def _mix_taps(self, inputs_BTG: Tensor, length: int) -> Tensor:
        """The depthwise convolution, (B, L, G); as sums where a compiler makes one loop of them."""
        taps_KG, bias_G = self.taps_KG, self.taps_bias_G
        if inputs_BTG.is_cuda:
            shifted = (inputs_BTG[:, k : k + length] * tap_G for k, tap_G in enumerate(taps_KG))
            return sum(shifted, start=bias_G)
        return F.conv1d(inputs_BTG.mT, taps_KG.T[:, None], bias_G, groups=len(bias_G)).mT


def _untrained_delta_bias(heads: int) -> Tensor:
    """What softplus makes a step of `_DELTA_RANGE`."""
    least, most = map(math.log, _DELTA_RANGE)
    delta_H = torch.empty(heads).uniform_(least, most).exp()
    return delta_H + (-torch.expm1(-delta_H)).log()
