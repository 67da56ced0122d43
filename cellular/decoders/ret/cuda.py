"""Decoding on an NVIDIA GPU: one kernel launch writes whole texts, greedily or by sampling.

The weights are read at each call, in bf16 with fp32 sums, so they may change between calls. A row's pieces do
not depend on the rest of the batch.

Shapes as in `model`.
"""

import torch
from torch import Tensor

from cellular.decoders.ret.generation import TorchEngine, up_to_end
from cellular.decoders.ret.model import HIDDEN, INNER, RET, VOCABULARY, normalise, rotary_table
from cellular.decoders.ret.vocabulary import PieceArray
from cellular.decoders.ret.weights import Precision
from cellular.errors import CellularError
from cellular.types import FloatArray

_CACHE_BYTES = 4 << 30  # for the keys and values of the texts that are written at a time
_BLOCK, _CHUNK, _SPAN, _WARPS = 16, 64, 8, 4


class CudaEngine(TorchEngine):
    """Greedy texts by one kernel; beams and samples of chosen rows by the reference, on the GPU.

    Raises:
        CellularError: another precision than bf16, or no GPU.
    """

    name = "cuda"

    def __init__(self, model: RET, precision: Precision = "bf16") -> None:
        if precision != "bf16":
            raise CellularError(f"engine 'cuda' has no precision {precision!r}: choose bf16")
        if not torch.cuda.is_available():
            raise CellularError("engine 'cuda' needs an NVIDIA GPU: choose another, or auto")
        super().__init__(model, precision, "cuda")

    def greedy(self, embeddings_BE: FloatArray, max_pieces: int) -> list[PieceArray]:
        """As `Engine.greedy`."""
        ids_BL = greedy_pieces(self._model, torch.from_numpy(embeddings_BE).cuda(), max_pieces)
        return [up_to_end(ids_L) for ids_L in ids_BL.cpu().numpy()]


def greedy_pieces(model: RET, embeddings_BE: Tensor, max_pieces: int) -> Tensor:
    """The likeliest piece at each position.

    Args:
        model: where the embeddings are, of any floating dtype.
        embeddings_BE: (B, E) float32, unit norm.
        max_pieces: L.

    Returns:
        (B, L) uint8 on the same device, END from the end of a text on.
    """
    return _write(model, embeddings_BE, max_pieces, None, None)


def sample_pieces(
    model: RET, embeddings_BE: Tensor, max_pieces: int, temperature: float, generator: torch.Generator
) -> Tensor:
    """As `greedy_pieces`, but each piece is drawn from the softmax, by Gumbel noise (Maddison et al. 2014).

    Args:
        temperature: divides the logits; above 0.
        generator: of the CPU; gives the seeds of the kernel's own numbers.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    return _write(model, embeddings_BE, max_pieces, temperature, generator)


@torch.no_grad()
def _write(
    model: RET,
    embeddings_BE: Tensor,
    max_pieces: int,
    temperature: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    batch, config = len(embeddings_BE), model.config
    positions = config.prefix_states - 1 + max_pieces
    rows = max(1, _CACHE_BYTES // (4 * config.applications * positions * HIDDEN))
    weights = _kernel_weights(model, positions)
    ids_BL = torch.zeros(batch, max_pieces, dtype=torch.uint8, device=embeddings_BE.device)
    for start in range(0, batch, rows):
        seed = int(torch.randint(2**31, (), generator=generator)) if temperature else 0
        part = slice(start, start + rows)
        _launch(model, weights, embeddings_BE[part], ids_BL[part], temperature, seed)
    return ids_BL


def _kernel_weights(model: RET, positions: int) -> list[Tensor]:
    """What the kernel reads of the model, in its order: gains are folded into the matrices after them."""
    dtype = torch.bfloat16 if model.projection.is_cuda else torch.float32
    matrices = [
        model.query_key_value * model.attention_norm,
        model.attention_out,
        model.mlp_in * model.mlp_norm,
        model.mlp_out,
        model.pieces * model.output_norm * (4 / HIDDEN**0.5),
    ]
    projection, attention_out, mlp_in, mlp_out, head = (matrix.to(dtype).contiguous() for matrix in matrices)
    rotary = rotary_table(positions, model.projection.device, torch.float32)
    cosine, sine = (table[:, : HIDDEN // 4].contiguous() for table in rotary)
    pieces = (model.pieces * HIDDEN**0.5).to(dtype).contiguous()
    narrow = [pieces, model.input_norm.float(), projection, attention_out, mlp_in, mlp_out]
    return [*narrow, model.steps().float().contiguous(), head, model.output_bias.float(), cosine, sine]


def _launch(
    model: RET,
    weights: list[Tensor],
    embeddings_BE: Tensor,
    ids_BL: Tensor,
    temperature: float | None,
    seed: int,
) -> None:
    import triton

    from cellular.decoders.ret.fused.decode import decode_kernel

    batch, max_pieces = ids_BL.shape
    applications, prefixes = model.config.applications, model.config.prefix_states
    positions = prefixes - 1 + max_pieces
    prefix_BPD = model.prefix(embeddings_BE).float()
    mean_BD = model.prefix_gain.float() * prefix_BPD.mean(1)
    keys = weights[0].new_empty(applications, batch, positions, HIDDEN)
    decode_kernel[(triton.cdiv(batch, _BLOCK),)](
        normalise(prefix_BPD, model.input_norm.float()).contiguous(),
        mean_BD,
        *weights,
        keys,
        torch.empty_like(keys),
        weights[0].new_empty(batch, HIDDEN),
        ids_BL,
        batch,
        positions,
        1 / (temperature or 1.0),
        seed,
        A=applications,
        P=prefixes,
        D=HIDDEN,
        INNER=INNER,
        V=VOCABULARY,
        BLOCK=_BLOCK,
        CHUNK=_CHUNK,
        SPAN=_SPAN,
        SAMPLE=temperature is not None,
        num_warps=_WARPS,
        num_stages=2,
    )
