"""Writing text piece by piece: an engine runs the model, and greedy choice or sampling picks from its logits.

Every row of a batch starts at position 0 and is as long as the others, so that nothing is padded.

Shapes as in `model`; R rows, of which each is one text being written.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cellular.decoders.ret.model import HEADS, HIDDEN, RET, rotary_table
from cellular.decoders.ret.vocabulary import END, PieceArray
from cellular.decoders.ret.weights import Precision
from cellular.errors import CellularError
from cellular.types import FloatArray

MAX_PIECES = 128
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LIVE_SHARE = 0.75  # of a batch's rows; below it the finished ones are dropped, as moving the rest costs too

State = TypeVar("State")
Choice = Callable[[Tensor, Tensor, int], Tensor]
"""From (R, V) logits, (R,) numbers of their rows and the position, the (R,) int64 ids to append."""


class Written(NamedTuple):
    """Pieces of a text without END; the log-probability (nats) of writing them, and END if it came."""

    pieces: PieceArray
    log_probability: float


class Engine(Protocol[State]):
    """Runs the model one piece at a time. All that changes is in the state: threads may share an engine."""

    @property
    def name(self) -> str:
        """Its name in ENGINES."""

    def start(self, embeddings_BE: FloatArray, max_pieces: int) -> tuple[State, Tensor]:
        """Read embeddings.

        Args:
            embeddings_BE: (B, E) float32, unit norm.
            max_pieces: calls of `step` that the state must have room for.

        Returns:
            The state of B rows, and (B, V) float32 logits of their first pieces.
        """

    def step(self, state: State, ids_B: Tensor) -> Tensor:
        """Append a piece to each row, (B,) int64, in place; (B, V) float32 logits of the next pieces."""

    def select(self, state: State, rows_R: Tensor) -> State:
        """The state of these rows, (R,) int64, in this order; a row may come several times, or not.

        The state given is not to be used again: its memory may be the new one's.
        """

    def greedy(self, embeddings_BE: FloatArray, max_pieces: int) -> list[PieceArray]:
        """The likeliest piece at each position, up to END, which is left out."""


@dataclass
class Cache:
    """Keys and values of every application, in memory that is taken once; `length` positions are filled."""

    keys_ABHTK: Tensor
    values_ABHTK: Tensor
    prefix_BPD: Tensor
    codes: Tensor
    """What is added at each application, (A, D), or each position, (L, D): as the model has it."""
    rotary: tuple[Tensor, Tensor]
    length: int = 0

    def extend(self, positions: int) -> tuple[Tensor, Tensor]:
        """Take room for new positions; their part of the rotary table."""
        start, self.length = self.length, self.length + positions
        cosine, sine = self.rotary
        return cosine[start : self.length], sine[start : self.length]

    def attend(self, application: int, query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor) -> Tensor:
        """What the newest T positions read, (B, H, T, K), once their keys and values are kept."""
        keys_BHTK, values_BHTK = self.keys_ABHTK[application], self.values_ABHTK[application]
        start, end = self.length - key_BHTK.shape[2], self.length
        keys_BHTK[:, :, start:end], values_BHTK[:, :, start:end] = key_BHTK, value_BHTK
        return F.scaled_dot_product_attention(
            query_BHTK, keys_BHTK[:, :, :end], values_BHTK[:, :, :end], is_causal=start == 0
        )

    @torch.inference_mode()
    def select(self, rows_R: Tensor) -> "Cache":
        """As `Engine.select`."""
        return replace(
            self,
            keys_ABHTK=_select_filled(self.keys_ABHTK, rows_R, self.length),
            values_ABHTK=_select_filled(self.values_ABHTK, rows_R, self.length),
            prefix_BPD=self.prefix_BPD[rows_R],
        )


class TorchEngine:
    """The reference: eager PyTorch with a cache of keys and values.

    Args:
        model: copied if its weights are not there in that precision already.
        precision: what is computed in: fp32 or bf16.
        device: "cpu", "cuda".

    Raises:
        CellularError: another precision.
    """

    name = "torch"

    def __init__(self, model: RET, precision: Precision = "fp32", device: torch.device | str = "cpu") -> None:
        if precision not in _DTYPES:
            raise CellularError(f"engine 'torch' has no precision {precision!r}: choose fp32 or bf16")
        self._model = _placed(model, torch.device(device), _DTYPES[precision])

    @torch.inference_mode()
    def start(self, embeddings_BE: FloatArray, max_pieces: int) -> tuple[Cache, Tensor]:
        """As `Engine.start`."""
        model = self._model
        weight = model.projection
        prefix_BPD = model.prefix(torch.from_numpy(embeddings_BE).to(weight.device))
        batch, prefixes, _ = prefix_BPD.shape
        positions = prefixes + max_pieces
        shape = (model.config.applications, batch, HEADS, positions, HIDDEN // HEADS)
        cache = Cache(
            keys_ABHTK=weight.new_empty(shape),
            values_ABHTK=weight.new_empty(shape),
            prefix_BPD=prefix_BPD,
            codes=model.steps().to(weight.dtype),
            rotary=rotary_table(positions, weight.device, weight.dtype),
        )
        no_pieces = torch.empty(batch, 0, dtype=torch.int64, device=weight.device)
        return cache, self._advance(cache, model.inputs(prefix_BPD, no_pieces))

    @torch.inference_mode()
    def step(self, state: Cache, ids_B: Tensor) -> Tensor:
        """As `Engine.step`."""
        return self._advance(state, self._model.piece_inputs(state.prefix_BPD, ids_B[:, None]))

    def _advance(self, cache: Cache, x_BTD: Tensor) -> Tensor:
        """Logits after the last of T new positions."""
        model, rotary = self._model, cache.extend(x_BTD.shape[1])
        for application, step_D in enumerate(cache.codes):
            x_BTD = x_BTD + step_D
            y_BHTK = cache.attend(application, *model.attention_inputs(x_BTD, rotary))
            x_BTD = model.layer_output(x_BTD, y_BHTK)
        return model.logits(x_BTD[:, -1:])[:, 0]

    def select(self, state: Cache, rows_R: Tensor) -> Cache:
        """As `Engine.select`."""
        return state.select(rows_R)

    def greedy(self, embeddings_BE: FloatArray, max_pieces: int) -> list[PieceArray]:
        """As `Engine.greedy`."""
        return greedy(self, embeddings_BE, max_pieces)


class Position(NamedTuple):
    """One step of a batch: the rows not yet dropped, what they get, and what that was chosen from."""

    rows_R: Tensor
    ids_R: Tensor
    logits_RV: Tensor
    open_R: Tensor
    """false where a row had ended before; its id is END again"""


def generate(
    engine: Engine[State], embeddings_BE: FloatArray, max_pieces: int, choose: Choice, copies: int = 1
) -> Iterator[Position]:
    """Write `copies` texts of each embedding, in consecutive rows, one position at a time."""
    state, logits_RV = engine.start(embeddings_BE, max_pieces)
    device = logits_RV.device
    rows_R = torch.arange(copies * len(embeddings_BE), device=device)
    if copies > 1:
        state, logits_RV = engine.select(state, rows_R // copies), logits_RV[rows_R // copies]
    open_R = torch.ones(len(rows_R), dtype=torch.bool, device=device)
    for position in range(max_pieces):
        ids_R = choose(logits_RV, rows_R, position).where(open_R, END)
        yield Position(rows_R, ids_R, logits_RV, open_R)
        open_R = ids_R != END
        live = int(open_R.sum())
        if live == 0 or position == max_pieces - 1:
            return
        if live < _LIVE_SHARE * len(open_R):
            kept = open_R.nonzero()[:, 0]
            state, rows_R, ids_R, open_R = engine.select(state, kept), rows_R[kept], ids_R[kept], open_R[kept]
        logits_RV = engine.step(state, ids_R)


def greedy(engine: Engine[State], embeddings_BE: FloatArray, max_pieces: int) -> list[PieceArray]:
    """What `Engine.greedy` must give, by the engine's other methods."""
    ids_BL = np.zeros((len(embeddings_BE), max_pieces), np.uint8)
    for index, position in enumerate(generate(engine, embeddings_BE, max_pieces, likeliest)):
        ids_BL[position.rows_R.cpu(), index] = position.ids_R.cpu()
    return [up_to_end(ids_L) for ids_L in ids_BL]


def sample(
    engine: Engine[State], embeddings_BE: FloatArray, max_pieces: int, samples: int, sampler: "Sampler"
) -> list[list[Written]]:
    """Draw `samples` texts of each embedding."""
    ids_RL = np.zeros((samples * len(embeddings_BE), max_pieces), np.uint8)
    log_probability_R = np.zeros(len(ids_RL))
    for index, position in enumerate(generate(engine, embeddings_BE, max_pieces, sampler, samples)):
        rows_R = position.rows_R.cpu().numpy()
        ids_RL[rows_R, index] = position.ids_R.cpu()
        chosen_R1 = position.logits_RV.log_softmax(-1).gather(-1, position.ids_R[:, None])
        log_probability_R[rows_R] += chosen_R1[:, 0].where(position.open_R, 0).cpu().numpy()
    written = [
        Written(up_to_end(ids_L), float(score))
        for ids_L, score in zip(ids_RL, log_probability_R, strict=True)
    ]
    return [written[start : start + samples] for start in range(0, len(written), samples)]


def up_to_end(ids_L: PieceArray) -> PieceArray:
    """The ids before the first END, or all."""
    ends = np.flatnonzero(ids_L == END)
    return ids_L[: ends[0]] if len(ends) else ids_L


def likeliest(logits_RV: Tensor, rows_R: Tensor, position: int) -> Tensor:
    """Greedy choice."""
    return logits_RV.argmax(-1)


class Sampler:
    """Nucleus sampling (Holtzman et al. 2019) by numbers drawn beforehand, one for each sample and position.

    Every embedding uses the same numbers, so that its texts do not depend on what else is in the batch.

    Args:
        samples: texts of an embedding, in consecutive rows.
        max_pieces: positions.
        temperature: divides the logits; above 0.
        top_p: only the likeliest pieces that together reach this probability are drawn.
        seed: of the numbers.

    Raises:
        ValueError: temperature or top_p is out of range.
    """

    def __init__(self, samples: int, max_pieces: int, temperature: float, top_p: float, seed: int) -> None:
        if not (0 < temperature < float("inf") and 0 < top_p <= 1):
            raise ValueError(f"need 0 < temperature and 0 < top_p <= 1, not {temperature} and {top_p}")
        self._temperature, self._top_p = temperature, top_p
        self._uniform_SL = torch.rand(samples, max_pieces, generator=torch.Generator().manual_seed(seed))

    def __call__(self, logits_RV: Tensor, rows_R: Tensor, position: int) -> Tensor:
        """Draw a piece for each row."""
        samples_R = rows_R.cpu() % len(self._uniform_SL)
        uniform_R1 = self._uniform_SL[samples_R, position, None].to(logits_RV.device)
        probability_RV = (logits_RV / self._temperature).softmax(-1)
        probability_RV, ids_RV = probability_RV.sort(stable=True, dim=-1, descending=True)
        before_RV = probability_RV.cumsum(-1) - probability_RV
        reach_RV = probability_RV.where(before_RV < self._top_p, 0).cumsum(-1)
        drawn_R1 = (reach_RV < uniform_R1 * reach_RV[:, -1:]).sum(-1, keepdim=True)
        drawn_R: Tensor = ids_RV.gather(-1, drawn_R1)[:, 0]
        return drawn_R


def _placed(model: RET, device: torch.device, dtype: torch.dtype) -> RET:
    weight = model.projection
    if weight.device == device and weight.dtype == dtype:
        return model
    return copy.deepcopy(model).to(device, dtype)


def _select_filled(cache_ABHTK: Tensor, rows_R: Tensor, length: int) -> Tensor:
    """Those rows, in the same memory unless they are more: fresh memory costs more than what is copied."""
    applications, batch, *rest = cache_ABHTK.shape
    if len(rows_R) > batch:
        wider = cache_ABHTK.new_empty(applications, len(rows_R), *rest)
        wider[:, :, :, :length] = cache_ABHTK[:, rows_R, :, :length]
        return wider
    changed = (rows_R != torch.arange(len(rows_R), device=rows_R.device)).nonzero()[:, 0]
    cache_ABHTK[:, changed, :, :length] = cache_ABHTK[:, rows_R[changed], :, :length]
    return cache_ABHTK[:, : len(rows_R)]
