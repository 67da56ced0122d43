"""HybridDecoder: a bank's phrases and RET's texts, of which the teacher chooses.

A decode is one round: texts are proposed, the teacher judges the most promising, and one is chosen. The
bank's phrases cost no call of the teacher, since the bank stores their vectors. What was judged is chosen by
its cosine with the target, by how likely RET finds it, and by how much the other good ones say the same. The
cosine alone would choose what no person says: two phrases joined often come closer than the true sentence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cellular.bank import PhraseBank
from cellular.checks import check_embeddings
from cellular.config import DecodingConfig, HybridConfig
from cellular.decoders.assembly import ASSEMBLERS, gather
from cellular.decoders.consensus import consensus
from cellular.decoders.postprocess import join_phrases
from cellular.decoders.ret.decoder import Hypothesis, RETDecoder
from cellular.errors import CellularError
from cellular.teachers import Teacher
from cellular.types import FloatArray

Source = Literal["bank", "ret"]

TARGETS = 64  # decoded at a time, so that memory does not follow their number
ASSEMBLY = DecodingConfig(assembly_method="beam_search")

EFFORTS: dict[str, HybridConfig] = {
    "none": HybridConfig(max_teacher_calls=0, draws=32),
    "low": HybridConfig(max_teacher_calls=9, draws=32),
    "medium": HybridConfig(),
    "high": HybridConfig(max_teacher_calls=129, draws=256),
}

# The cosine that a text will have, as far as can be told without the teacher. Of RET's texts: from the
# log-probability a character, the mean similarity to the other draws, and the cosine of the nearest phrase,
# by least squares over 8,260 draws for 120 sentences of the validation sets (R2 .60, deviation .13). Of
# several phrases: the predicted cosine times the mean ratio on 314 of them. See docs/experiments.md.
BASE, FLUENCY, CONSENSUS, NEAREST = 0.038, 0.192, 0.543, 0.476
ASSEMBLED = 0.957


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that may be the answer.

    Attributes:
        text: as its source wrote it.
        source: who that was.
        cosine: with the target; estimated until it is `judged`.
        judged: the cosine is the teacher's, by a call or by the vector that the bank stores.
        log_probability: RET's, of the whole text, in nats.
    """

    text: str
    source: Source
    cosine: float
    judged: bool
    log_probability: float


@dataclass(frozen=True, slots=True)
class HybridResult:
    """The text for one embedding.

    Attributes:
        text: the answer.
        score: cosine between the target and the teacher's embedding of the text.
        source: "bank" or "ret".
        estimated: the score is an estimate, since the teacher has not seen the text.
        teacher_calls: texts that the teacher embedded for this target.
        candidates: what it was chosen from: the bank's phrases, nearest first, then texts in the order in
            which the teacher judged them.
    """

    text: str
    score: float
    source: Source
    estimated: bool
    teacher_calls: int
    candidates: tuple[Candidate, ...] = ()


class HybridDecoder:
    """Chooses among a bank's phrases and RET's texts by the teacher.

    An answer depends on the embedding, the settings and the seed, on nothing else. Safe for several threads.
    The steps of a round are methods of their own: `stored`, `propose`, `judge`, `choose`.

    Args:
        bank: phrases of the teacher.
        ret: a decoder trained on the teacher's embeddings.
        teacher: what made the embeddings.
        effort: a name in EFFORTS, or settings of your own.

    Raises:
        CellularError: bank, decoder and teacher are not of one embedding space, or no such effort.
    """

    def __init__(
        self, bank: PhraseBank, ret: RETDecoder, teacher: Teacher, effort: HybridConfig | str = "medium"
    ) -> None:
        bank.check_teacher(teacher.fingerprint)
        ret.check_teacher(teacher.fingerprint)
        self.bank, self.ret, self.teacher = bank, ret, teacher
        self.config = effort if isinstance(effort, HybridConfig) else _effort(effort)

    def decode(self, embedding: ArrayLike, *, max_teacher_calls: int | None = None, seed: int = 0) -> str:
        """The text of one embedding (D,); see `decode_batch`."""
        if np.ndim(embedding) != 1:
            raise ValueError(f"embedding must have shape (D,), not {np.shape(embedding)}")
        return self.decode_batch(embedding, max_teacher_calls=max_teacher_calls, seed=seed)[0].text

    def decode_batch(
        self, embeddings: ArrayLike, *, max_teacher_calls: int | None = None, seed: int = 0
    ) -> list[HybridResult]:
        """Texts of N embeddings (N, D); none sees the others.

        Args:
            embeddings: of a floating dtype; any length, only the direction counts.
            max_teacher_calls: texts that the teacher may embed for each; None: the effort's own number.
            seed: of RET's draws.

        Raises:
            ValueError: wrong shape or dtype, NaN, infinity, a zero vector, a negative number of calls.
        """
        calls = self.config.max_teacher_calls if max_teacher_calls is None else max_teacher_calls
        if calls < 0:
            raise ValueError(f"max_teacher_calls must be at least 0, not {calls}")
        rows = check_embeddings(embeddings, self.bank.dimension)
        return [
            result
            for start in range(0, len(rows), TARGETS)
            for result in self._decode(rows[start : start + TARGETS], calls, seed)
        ]

    def propose(
        self, targets: FloatArray, best_so_far: Sequence[Candidate], seed: int
    ) -> list[list[Candidate]]:
        """Texts to judge for each target (N, D): RET's and the bank's own answers, then the most promising.

        Args:
            targets: of unit length.
            best_so_far: what the rounds before came to; nothing is proposed where it cannot be much bettered.
            seed: of RET's draws.
        """
        rows = [row for row, best in enumerate(best_so_far) if best.cosine < self.config.enough]
        proposals: list[list[Candidate]] = [[] for _ in targets]
        if rows:
            written = self._written(targets[rows], [best_so_far[row].cosine for row in rows], seed)
            for row, texts, assembled in zip(rows, written, self._assembled(targets[rows]), strict=True):
                greedy, *drawn = texts
                proposals[row] = [greedy, *assembled, *sorted(drawn, key=lambda one: -one.cosine)]
        return proposals

    def _decode(self, targets: FloatArray, calls: int, seed: int) -> list[HybridResult]:
        stored = self.stored(targets)
        best = [phrases[0] for phrases in stored]
        proposed = self.propose(targets, best, seed)
        if calls:
            judged = self.judge(targets, [texts[:calls] for texts in proposed])
            weight = self.config.likelihood_weight
        else:
            judged, weight = proposed, self.config.likelihood_weight_of_estimates
        considered = [(*phrases, *texts) for phrases, texts in zip(stored, judged, strict=True)]
        chosen = [self.choose(candidates, weight) for candidates in considered]
        return [
            HybridResult(
                one.text, one.cosine, one.source, not one.judged, len(texts) if calls else 0, candidates
            )
            for one, texts, candidates in zip(chosen, judged, considered, strict=True)
        ]

    def stored(self, targets: FloatArray) -> list[list[Candidate]]:
        """The nearest phrases, best first; their cosines are known."""
        found = self.bank.nearest(targets, self.config.phrases)
        texts = [self.bank.phrases(id for id in ids if id >= 0) for ids in found.ids.tolist()]
        scores = self._log_probabilities(targets, texts)
        return [
            [
                Candidate(text, "bank", float(cosine), True, value)
                for text, cosine, value in zip(*row, strict=False)
            ]
            for row in zip(texts, found.scores, scores, strict=True)
        ]

    def _written(self, targets: FloatArray, nearest: Sequence[float], seed: int) -> list[list[Candidate]]:
        """RET's greedy text first, then what it draws, each text once; cosines are estimates."""
        config = self.config
        greedy = self.ret.decode_batch(targets, max_length=config.max_length)
        drawn = self.ret.samples(
            targets,
            config.draws,
            max_length=config.max_length,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=seed,
        )
        first = map(Hypothesis, greedy, self.ret.log_probabilities(targets, greedy).tolist())
        return [
            self._estimated([one, *others], cosine)
            for one, others, cosine in zip(first, drawn, nearest, strict=True)
        ]

    def _estimated(self, hypotheses: Sequence[Hypothesis], nearest: float) -> list[Candidate]:
        """Each text once, in the order of their first occurrence."""
        counts = Counter(one.text for one in hypotheses)
        known = {one.text: one.log_probability for one in hypotheses}
        texts, total = list(counts), len(hypotheses)
        shares = np.fromiter(counts.values(), np.float32) / np.float32(total)
        others = (total * consensus(texts, shares) - 1) / (total - 1)  # without the text itself
        fluency = np.array([known[text] / (len(text) + 1) for text in texts])
        cosines = BASE + FLUENCY * fluency + CONSENSUS * others + NEAREST * nearest
        return [
            Candidate(text, "ret", float(cosine), False, known[text])
            for text, cosine in zip(texts, np.clip(cosines, -1, 1), strict=True)
        ]

    def _assembled(self, targets: FloatArray) -> list[list[Candidate]]:
        """The text of several phrases that the bank's vectors predict to be nearest, where there is one."""
        assembler = ASSEMBLERS[ASSEMBLY.assembly_method]
        chosen = [
            assembler.choose(pool, ASSEMBLY, None) if pool else None
            for pool in gather(self.bank, targets, assembler, ASSEMBLY)
        ]
        several = [[one] if one and len(one.phrases) > 1 else [] for one in chosen]
        texts = [[join_phrases(self.bank.phrases(one.phrases)) for one in some] for some in several]
        scores = self._log_probabilities(targets, texts)
        return [
            [
                Candidate(text, "bank", ASSEMBLED * one.score, False, score)
                for one, text, score in zip(*row, strict=True)
            ]
            for row in zip(several, texts, scores, strict=True)
        ]

    def _log_probabilities(self, targets: FloatArray, texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """RET's log-probability of each target's texts."""
        rows = np.repeat(np.arange(len(targets)), [len(some) for some in texts])
        flat = [text for some in texts for text in some]
        scores = iter(self.ret.log_probabilities(targets[rows], flat).tolist() if flat else ())
        return [[next(scores) for _ in some] for some in texts]

    def judge(self, targets: FloatArray, texts: Sequence[Sequence[Candidate]]) -> list[list[Candidate]]:
        """The same texts with the teacher's cosines; one call for all of them."""
        flat = [one.text for some in texts for one in some]
        vectors = iter(self.teacher.encode(flat)) if flat else iter(())
        return [
            [replace(one, cosine=float(next(vectors) @ target), judged=True) for one in some]
            for target, some in zip(targets, texts, strict=True)
        ]

    def choose(self, candidates: Sequence[Candidate], likelihood_weight: float) -> Candidate:
        """The one whose cosine, likelihood and agreement with the others together are the most."""
        config = self.config
        cosines = np.array([one.cosine for one in candidates], np.float32)
        values = cosines + likelihood_weight * np.array([one.log_probability for one in candidates])
        if config.consensus_weight:
            weights = np.exp((cosines - cosines.max()) / config.consensus_spread)
            shared = consensus([one.text for one in candidates], weights / weights.sum())
            values += config.consensus_weight * shared
        return candidates[int(values.argmax())]


def _effort(name: str) -> HybridConfig:
    if name not in EFFORTS:
        raise CellularError(f"no effort {name!r}: choose among {', '.join(EFFORTS)}")
    return EFFORTS[name]
