"""The recurrence itself, a position at a time: what the fast forms are tested against.

    h_t = exp(Δ_t A) h_(t-1) + Δ_t B_t x_t        y_t = C_t · h_t

Gu & Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", equations 2 and 4, with
Euler's step for B (Δ B in place of the zero-order hold's (exp(Δ A) - 1) B / A) as in its code. Symbols:

    paper   here     shape      meaning
    x       x        B, L, D    input: L positions of D channels
    Δ       delta    B, L, D    step size, >= 0: how far a channel's state moves on at this position
    A       a        D, N       rates, < 0: how fast each of a channel's N state components decays
    B       b        B, L, N    how the input enters the state, the same for all channels
    C       c        B, L, N    how the output reads the state
    h       state    B, D, N    what is remembered; h_0 is zero, or where an earlier segment ended
    exp(ΔA) decay    B, L, D, N what is kept of the state: in (0, 1]
    D       skip     D          of `MambaBlock`, not of a scan: y_t + D x_t

"Selective" says that Δ, B and C depend on the input. In Mamba-2 (Dao & Gu 2024) the channels form H heads of
P; a head has one Δ, (B, L, H), and one rate, (H,): x is (B, L, H, P) and the state (B, H, P, N).
"""

import torch
from torch import Tensor


def selective_scan_ref(
    x_BLD: Tensor,
    delta_BLD: Tensor,
    a_DN: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BDN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, L, D) of x's dtype, and the state (B, D, N) after the last position.

    The state is kept in float32, or float64 if x or the state is. At least one position.
    """
    kept = state_dtype(x_BLD)
    state = x_BLD.new_zeros(len(x_BLD), *a_DN.shape, dtype=kept) if state_BDN is None else state_BDN.to(kept)
    outputs = []
    by_position = (tensor.to(kept).unbind(1) for tensor in (x_BLD, delta_BLD, b_BLN, c_BLN))
    for x_BD, delta_BD, b_BN, c_BN in zip(*by_position, strict=True):
        decay_BDN = (delta_BD[:, :, None] * a_DN).exp()
        state = decay_BDN * state + (delta_BD * x_BD)[:, :, None] * b_BN[:, None]
        outputs.append((state * c_BN[:, None]).sum(-1))
    return torch.stack(outputs, 1).to(x_BLD.dtype), state


def ssd_scan_ref(
    x_BLHP: Tensor,
    delta_BLH: Tensor,
    a_H: Tensor,
    b_BLN: Tensor,
    c_BLN: Tensor,
    state_BHPN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's scan as the special case that it is: the channels of a head share their step and rate.

    Outputs (B, L, H, P) of x's dtype, and the last state (B, H, P, N).
    """
    heads, width = x_BLHP.shape[2:]
    y_BLD, state_BDN = selective_scan_ref(
        x_BLHP.flatten(2),
        delta_BLH.repeat_interleave(width, 2),
        a_H.repeat_interleave(width)[:, None].expand(-1, b_BLN.shape[2]),
        b_BLN,
        c_BLN,
        None if state_BHPN is None else state_BHPN.flatten(1, 2),
    )
    return y_BLD.view_as(x_BLHP), torch.unflatten(state_BDN, 1, (heads, width))


def state_dtype(x: Tensor) -> torch.dtype:
    """What a state is kept in: sums over many positions need more than bfloat16."""
    return torch.promote_types(x.dtype, torch.float32)
