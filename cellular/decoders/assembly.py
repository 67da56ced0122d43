"""Assembly: which phrases of the bank make the text whose embedding comes closest to the target.

The embedding of "A B" is close to the normalised sum of A's and B's, each weighted by the square root of its
length and the first a little more (FIRST_WEIGHT). So a set of phrases can be scored with the bank's vectors
alone, without the teacher: its cosine with the target needs only inner products. Phrases that complete one
another are found by matching pursuit (Mallat and Zhang 1993): what the best phrase leaves of the target is
searched in turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cellular.bank import PhraseBank
from cellular.config import DecodingConfig
from cellular.types import FloatArray, IntArray

FIRST_WEIGHT = 1.2  # a teacher's embedding leans to the start of its text; measured, see benchmarks


@dataclass(frozen=True)
class Pool:
    """The phrases that one text may be assembled from: P of them, those of the plain search first.

    Attributes:
        bank: where they are.
        target: (D,) float32, unit length.
        ids: (P,) int64, each once.
        found: how many came from the plain search, best first.
        scores: (found,) float32, cosines of those with the target.
    """

    bank: PhraseBank
    target: FloatArray
    ids: IntArray
    found: int
    scores: FloatArray

    @cached_property
    def phrases(self) -> list[str]:
        """The P texts."""
        return self.bank.phrases(self.ids)

    @cached_property
    def lengths(self) -> FloatArray:
        """(P,) float32, in characters."""
        return np.fromiter(map(len, self.phrases), np.float32, len(self.ids))

    @cached_property
    def vectors(self) -> FloatArray:
        """(P, D) float32, unit length."""
        return self.bank.embeddings(self.ids)


@dataclass(frozen=True, slots=True)
class Assembly:
    """Rows of the bank in reading order, and the cosine with the target that their vectors predict."""

    phrases: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Assembler:
    """One way to choose phrases.

    Attributes:
        choose: from a pool and a prior (P,) to an assembly.
        pursues: the pool holds what searches of the residuals found, too.
        uses_session: the prior comes from the session; otherwise it is zero.
        takes_first: `choose` is sure to take the search's first hit, so that no pool has to be made.
    """

    choose: Callable[[Pool, DecodingConfig, FloatArray | None], Assembly]
    pursues: bool = False
    uses_session: bool = False
    takes_first: bool = False


def gather(
    bank: PhraseBank, targets: FloatArray, assembler: Assembler, config: DecodingConfig
) -> list[Pool | None]:
    """Search for each target (N, D) the phrases that an assembler needs; None where nothing was found."""
    first = bank.nearest(targets, config.top_k, config.search_effort)
    further: dict[int, list[IntArray]] = {}
    if assembler.pursues and config.max_phrases > 1:
        rows = np.flatnonzero(first.scores[:, 0] < 1 - config.min_gain)  # the others cannot gain so much
        rounds = pursue(bank, targets[rows], first.ids[rows, 0], config) if len(rows) else []
        further = {row: [ids[at] for ids in rounds] for at, row in enumerate(rows.tolist())}
    return [
        make_pool(bank, target, scores, [ids, *further.get(row, ())])
        for row, (target, scores, ids) in enumerate(zip(targets, first.scores, first.ids, strict=True))
    ]


def pursue(bank: PhraseBank, targets: FloatArray, best: IntArray, config: DecodingConfig) -> list[IntArray]:
    """Search what each round's best phrase leaves of the targets: (N, k) ids for each further phrase."""
    residuals = targets.copy()
    rounds = []
    for _ in range(config.max_phrases - 1):
        vectors = bank.embeddings(np.maximum(best, 0))
        residuals -= np.einsum("nd,nd->n", residuals, vectors)[:, np.newaxis] * vectors
        lengths = np.linalg.norm(residuals, axis=1, keepdims=True)
        found = bank.search(residuals / np.maximum(lengths, 1e-9), config.top_k, effort=config.search_effort)
        rounds.append(found.ids)
        best = found.ids[:, 0]
    return rounds


def make_pool(
    bank: PhraseBank, target: FloatArray, scores: FloatArray, rounds: Sequence[IntArray]
) -> Pool | None:
    """One target's pool out of the ids (k,) that each search found for it, padded with -1."""
    ids = rounds[0]
    found = len(ids) if ids[-1] >= 0 else int((ids >= 0).sum())
    if not found:
        return None
    if len(rounds) > 1:
        ids = np.fromiter(dict.fromkeys(np.concatenate([ids[:found], *rounds[1:]]).tolist()), np.int64)
        ids = ids[ids >= 0]
    return Pool(bank, target, ids[:found] if len(rounds) == 1 else ids, found, scores[:found])


def greedy(pool: Pool, config: DecodingConfig, prior: FloatArray | None) -> Assembly:
    """The nearest phrase."""
    return Assembly((int(pool.ids[0]),), float(pool.scores[0]))


def weighted(pool: Pool, config: DecodingConfig, prior: FloatArray | None) -> Assembly:
    """The phrase with the best sum of cosine, log frequency and log length."""
    frequency = np.log1p(pool.bank.counts(pool.ids))
    length = np.log1p(pool.lengths)
    value = pool.scores + config.frequency_weight * frequency / frequency.max()
    value += config.length_weight * length / length.max()
    best = int(value.argmax())
    return Assembly((int(pool.ids[best]),), float(pool.scores[best]))


def beam_search(pool: Pool, config: DecodingConfig, prior: FloatArray | None) -> Assembly:
    """The sequence whose combined vector comes closest to the target; with a prior, the likelier one.

    All pairs are scored; from there on a beam. A longer sequence must gain `min_gain` on a shorter one.
    """
    beams = Beams.of_single_phrases(pool, prior)
    best = beams.best()
    for _ in range(min(config.max_phrases, len(pool.ids)) - 1):
        beams = beams.extended(config.beam_width)
        longer = beams.best()
        if longer.value < best.value + config.min_gain:
            break
        best = longer
    members = [best.members[0], *sorted(best.members[1:])]  # whose order the vectors leave open: by nearness
    return Assembly(tuple(pool.ids[members].tolist()), best.cosine)


@dataclass(frozen=True, slots=True)
class Scored:
    """A sequence of pool members, its predicted cosine, and that plus the mean prior."""

    members: tuple[int, ...]
    cosine: float
    value: float


@dataclass(frozen=True)
class Beams:
    """B sequences of m pool members, held as inner products so that extending them is arithmetic on (B, P).

    Attributes:
        weights: (P,) of a phrase that is not the first.
        dots: (P,) inner products with the target.
        gram: (P, P) inner products of the pool.
        prior: (P,).
        members: (B, m).
        sums: (B,) inner product of the weighted sum with the target.
        squares: (B,) squared length of the weighted sum.
        priors: (B,) sum of the members' priors.
    """

    weights: FloatArray
    dots: FloatArray
    gram: FloatArray
    prior: FloatArray
    members: IntArray
    sums: FloatArray
    squares: FloatArray
    priors: FloatArray

    @classmethod
    def of_single_phrases(cls, pool: Pool, prior: FloatArray | None) -> "Beams":
        """Every phrase of the pool on its own."""
        vectors, weights = pool.vectors, np.sqrt(pool.lengths)
        dots, first = vectors @ pool.target, np.float32(FIRST_WEIGHT) * weights
        prior = np.zeros_like(dots) if prior is None else prior
        members = np.arange(len(weights))[:, np.newaxis]
        return cls(
            weights, dots, vectors @ vectors.T, prior, members, first * dots, first * first, prior.copy()
        )

    def best(self) -> Scored:
        """The best sequence."""
        cosines = self.sums / np.sqrt(self.squares)
        values = cosines + self.priors / self.members.shape[1]
        row = int(values.argmax())
        return Scored(tuple(self.members[row].tolist()), float(cosines[row]), float(values[row]))

    def extended(self, width: int) -> "Beams":
        """The best `width` sequences that are one phrase longer."""
        sums = self.sums[:, np.newaxis] + self.weights * self.dots
        squares = self.squares[:, np.newaxis] + self.weights * (self.weights + 2 * self._crossed())
        priors = self.priors[:, np.newaxis] + self.prior
        values = sums / np.sqrt(squares) + priors / (self.members.shape[1] + 1)
        np.put_along_axis(values, self.members, -np.inf, axis=1)  # no phrase twice
        kept = np.argpartition(-values, min(width, values.size) - 1, axis=None)[:width]
        rows, columns = np.unravel_index(kept[np.isfinite(values.ravel()[kept])], values.shape)
        members = np.concatenate([self.members[rows], columns[:, np.newaxis]], axis=1)
        kept_values = (sums[rows, columns], squares[rows, columns], priors[rows, columns])
        return Beams(self.weights, self.dots, self.gram, self.prior, members, *kept_values)

    def _crossed(self) -> FloatArray:
        """(B, P) inner products of the weighted sums with the pool."""
        scale = self.weights[self.members]
        scale[:, 0] *= FIRST_WEIGHT
        crossed: FloatArray = np.einsum("bm,bmp->bp", scale, self.gram[self.members])
        return crossed


ASSEMBLERS: dict[str, Assembler] = {
    "greedy": Assembler(greedy, takes_first=True),
    "weighted": Assembler(weighted),
    "beam_search": Assembler(beam_search, pursues=True),
    "context_aware": Assembler(beam_search, pursues=True, uses_session=True),
}
