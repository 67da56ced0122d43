"""Beam search over an Engine: the likeliest texts of each embedding, best first.

Shapes: N embeddings still searched, W beams of each, L pieces so far, V vocabulary, C candidates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cellular.decoders.ret.generation import Engine, State, Written
from cellular.decoders.ret.model import VOCABULARY
from cellular.decoders.ret.vocabulary import END
from cellular.types import FloatArray

MAX_WIDTH = VOCABULARY // 2  # the first position offers no more candidates than twice that


def beam_search(
    engine: Engine[State], embeddings_NE: FloatArray, max_pieces: int, width: int, length_penalty: float = 0.0
) -> list[list[Written]]:
    """The `width` best texts that a search of that width finds for each embedding.

    A text's score is its log-probability divided by its number of pieces, END included, to the power of
    `length_penalty` (Wu et al. 2016). An embedding's search ends when `width` texts have ended and no beam
    could still beat the worst of them without growing; with a penalty of 0 this loses nothing.

    Raises:
        ValueError: width is not 1 to 128, or the penalty is negative.
    """
    if not (1 <= width <= MAX_WIDTH and length_penalty >= 0):
        raise ValueError(f"need a beam width of 1 to {MAX_WIDTH} and a length penalty of 0 or more")
    if len(embeddings_NE) == 0:
        return []
    state, logits = engine.start(embeddings_NE, max_pieces)
    beams = _Beams(logits.device, len(embeddings_NE), width, length_penalty)
    for position in range(max_pieces):
        parents_R = beams.grow(logits)
        if len(parents_R) == 0 or position == max_pieces - 1:
            break
        state = engine.select(state, parents_R)
        logits = engine.step(state, beams.ids_NWL[..., -1].flatten())
    return beams.best()


@dataclass
class _Found:
    """Texts of one embedding that have ended, or that ran out of positions."""

    width: int
    texts: list[tuple[float, Written]]

    def add(self, score: float, written: Written) -> None:
        """Keep the text if it is among the best."""
        self.texts = sorted([*self.texts, (score, written)], key=lambda text: -text[0])[: self.width]

    def is_final(self, bound: float) -> bool:
        """Whether nothing of that score would be kept."""
        return len(self.texts) == self.width and self.texts[-1][0] >= bound


class _Beams:
    """The texts being written, of the embeddings whose search goes on."""

    def __init__(self, device: torch.device, embeddings: int, width: int, length_penalty: float) -> None:
        self._width, self._penalty = width, length_penalty
        self._found = [_Found(width, []) for _ in range(embeddings)]
        self._numbers = list(range(embeddings))
        self._scores_NW = torch.zeros(embeddings, 1, device=device)
        self.ids_NWL = torch.zeros(embeddings, 1, 0, dtype=torch.int64, device=device)

    def grow(self, logits_RV: Tensor) -> Tensor:
        """Append a piece to every beam; the rows that the new beams continue."""
        rows, beams = self._scores_NW.shape
        scores_NWV = logits_RV.log_softmax(-1).view(rows, beams, VOCABULARY) + self._scores_NW[..., None]
        best_NC, flat_NC = scores_NWV.flatten(1).topk(2 * self._width)
        parents_NC, ids_NC = flat_NC // VOCABULARY, flat_NC % VOCABULARY
        ended_NC = ids_NC == END
        self._collect(best_NC, parents_NC, ended_NC)
        order_NW = ended_NC.byte().argsort(stable=True)[:, : self._width]  # those that go on
        if beams == self._width:
            order_NW = order_NW.gather(1, _stay_in_place(parents_NC.gather(1, order_NW)))
        self._scores_NW, parents_NW = best_NC.gather(1, order_NW), parents_NC.gather(1, order_NW)
        before_NWL = self.ids_NWL.take_along_dim(parents_NW[..., None], 1)
        self.ids_NWL = torch.cat([before_NWL, ids_NC.gather(1, order_NW)[..., None]], -1)
        first_row_N1 = beams * torch.arange(rows, device=flat_NC.device)[:, None]
        return self._drop_final(first_row_N1 + parents_NW)

    def best(self) -> list[list[Written]]:
        """The texts found; where a search has not ended, its beams count as they are."""
        for row, number in enumerate(self._numbers):
            for score, ids_L in zip(self._scores_NW[row].tolist(), self.ids_NWL[row], strict=True):
                self._add(number, score, ids_L, ids_L.shape[0])
        return [[written for _, written in found.texts] for found in self._found]

    def _collect(self, best_NC: Tensor, parents_NC: Tensor, ended_NC: Tensor) -> None:
        for row, column in ended_NC[:, : self._width].nonzero().tolist():
            ids_L = self.ids_NWL[row, parents_NC[row, column]]
            self._add(self._numbers[row], float(best_NC[row, column]), ids_L, ids_L.shape[0] + 1)

    def _add(self, number: int, log_probability: float, ids_L: Tensor, pieces: int) -> None:
        written = Written(ids_L.byte().cpu().numpy(), log_probability)
        self._found[number].add(self._score(log_probability, pieces), written)

    def _score(self, log_probability: float, pieces: int) -> float:
        return log_probability / float(pieces**self._penalty)

    def _drop_final(self, rows_NW: Tensor) -> Tensor:
        """The rows of embeddings whose search goes on."""
        pieces = self.ids_NWL.shape[-1]
        bounds = [self._score(score, pieces) for score in self._scores_NW.amax(1).tolist()]
        kept = [
            row
            for row, (number, bound) in enumerate(zip(self._numbers, bounds, strict=True))
            if not self._found[number].is_final(bound)
        ]
        self._numbers = [self._numbers[row] for row in kept]
        self._scores_NW, self.ids_NWL = self._scores_NW[kept], self.ids_NWL[kept]
        return rows_NW[kept].flatten()


def _stay_in_place(parents_NW: Tensor) -> Tensor:
    """An order of the new beams, (N, W), in which each parent's first one takes the parent's place.

    The others take the places of parents without any, so that `Engine.select` copies those rows alone.
    """
    places_1W1 = torch.arange(parents_NW.shape[1], device=parents_NW.device)[None, :, None]
    continues_NWW = parents_NW[:, None] == places_1W1  # (N, place, beam)
    free_NW = ~continues_NWW.any(2)
    first_NW = continues_NWW.byte().argmax(2)
    earlier_NW = (continues_NWW.cumsum(2) * continues_NWW).sum(1)  # beams of the same parent so far
    others_NW = (earlier_NW == 1).byte().argsort(stable=True)
    return others_NW.gather(1, (free_NW.cumsum(1) - 1).clamp(min=0)).where(free_NW, first_NW)
