"""One configuration over one bank: the way from checked embeddings to results."""

import hashlib
import logging
from collections.abc import Sequence
from time import perf_counter

from cellular.bank import PhraseBank
from cellular.config import DecodingConfig
from cellular.decoders.assembly import ASSEMBLERS, Assembly, Pool, gather
from cellular.decoders.context import ContextPrior, Session
from cellular.decoders.monitoring import Monitor
from cellular.decoders.pattern_cache import PatternCache, PatternKey
from cellular.decoders.postprocess import join_phrases
from cellular.decoders.results import Answer, Candidate, DecodeResult
from cellular.errors import CellularError
from cellular.types import FloatArray

log = logging.getLogger(__name__)

BELOW_THRESHOLD = "nothing scores above the threshold"


class Engine:
    """Immutable but for the cache and the counts, which it shares with the engines before and after it."""

    def __init__(
        self,
        bank: PhraseBank,
        prior: ContextPrior,
        config: DecodingConfig,
        cache: PatternCache[Answer] | None,
        monitor: Monitor,
    ) -> None:
        self.bank = bank
        self.prior = prior
        self.uses_session = ASSEMBLERS[config.assembly_method].uses_session
        self._assembler = ASSEMBLERS[config.assembly_method]
        self._config = config
        self._cache = cache
        self._monitor = monitor
        self._setup = hashlib.sha256(f"{config.model_dump_json()}{bank.version_id}".encode()).digest()

    def answer(self, rows: FloatArray, sessions: Sequence[Session]) -> list[Answer]:
        """Answers to unit vectors (N, D), each with its session's past."""
        if not len(rows):
            return []
        if self.uses_session:
            for session in sessions:
                session.check(self.bank.dimension)
        if self._cache is None:
            answers = self._resolve(rows, sessions)
        else:
            answers = self._look_up(self._cache, rows, sessions)
        self._monitor.count(answers)
        return answers

    def _look_up(
        self, cache: PatternCache[Answer], rows: FloatArray, sessions: Sequence[Session]
    ) -> list[Answer]:
        started = perf_counter()
        keys: list[PatternKey] = []
        answers: dict[int, Answer] = {}
        for number, (row, session) in enumerate(zip(rows, sessions, strict=True)):
            keys.append(cache.key(row, self._setup, session.digest if self.uses_session else b""))
            if known := cache.get(keys[number], row):
                answers[number] = known._replace(source="cache")
        self._monitor.time("cache", perf_counter() - started)
        missing = [number for number in range(len(rows)) if number not in answers]
        if answers and missing:
            rows, sessions = rows[missing], [sessions[number] for number in missing]
        for at, answer in enumerate(self._resolve(rows, sessions) if missing else ()):
            answers[missing[at]] = answer
            if answer.source == "bank":
                cache.put(keys[missing[at]], rows[at], answer)
        return [answers[number] for number in range(len(keys))]

    def _resolve(self, rows: FloatArray, sessions: Sequence[Session]) -> list[Answer]:
        try:
            if self._assembler.takes_first:
                answers = self._take_first(rows)
            else:
                answers = self._assemble_all(rows, sessions)
        except Exception as error:  # whatever fails, a valid embedding has a defined answer
            log.exception("decoding failed")
            self._monitor.note_error(f"{type(error).__name__}: {error}", len(rows))
            return [fallback(self._config, f"decoding failed: {error}")] * len(rows)
        return [answer or fallback(self._config, BELOW_THRESHOLD) for answer in answers]

    def _take_first(self, rows: FloatArray) -> list[Answer | None]:
        """The nearest phrases: plain numbers from the search on, since arrays would cost as much again."""
        started = perf_counter()
        found = self.bank.nearest(rows, self._config.top_k, self._config.search_effort)
        searched = perf_counter()
        answers = [
            self._finish((ids[0],), scores[0], ids, scores)
            if ids[0] >= 0 and scores[0] >= self._config.min_score
            else None
            for ids, scores in zip(found.ids.tolist(), found.scores.tolist(), strict=True)
        ]
        self._monitor.time("search", searched - started)
        self._monitor.time("postprocess", perf_counter() - searched)
        return answers

    def _assemble_all(self, rows: FloatArray, sessions: Sequence[Session]) -> list[Answer | None]:
        started = perf_counter()
        pools = gather(self.bank, rows, self._assembler, self._config)
        gathered = perf_counter()
        chosen = [self._assemble(*pair) for pair in zip(pools, sessions, strict=True)]
        assembled = perf_counter()
        answers = [
            self._finish(
                assembly.phrases, assembly.score, pool.ids[: pool.found].tolist(), pool.scores.tolist()
            )
            if pool and assembly
            else None
            for pool, assembly in zip(pools, chosen, strict=True)
        ]
        self._monitor.time("search", gathered - started)
        self._monitor.time("assemble", assembled - gathered)
        self._monitor.time("postprocess", perf_counter() - assembled)
        return answers

    def _assemble(self, pool: Pool | None, session: Session) -> Assembly | None:
        if pool is None:
            return None
        prior = None
        if self.uses_session and session.turns:
            prior = self._config.context_weight * self.prior(pool, session.latest(self._config.context_turns))
        assembly = self._assembler.choose(pool, self._config, prior)
        return assembly if assembly.score >= self._config.min_score else None

    def _finish(self, chosen: tuple[int, ...], score: float, ids: list[int], scores: list[float]) -> Answer:
        phrases = self.bank.phrases(chosen)
        text = join_phrases(phrases) if self._config.enable_postprocessing else " ".join(phrases)
        listed = self._config.listed_candidates
        if ids[-1] < 0:  # the search found fewer than were asked for
            listed = min(listed, ids.index(-1))
        return Answer(text, score, "bank", None, chosen, ids[:listed], scores[:listed])


def describe(answer: Answer, bank: PhraseBank | None) -> DecodeResult:
    """An answer with its candidates' texts; without a bank there are none."""
    phrases = bank.phrases(answer.ids) if bank else []
    candidates = tuple(map(Candidate, answer.ids, phrases, answer.scores))
    return DecodeResult(answer.text, answer.score, answer.source, answer.reason, answer.phrases, candidates)


def fallback(config: DecodingConfig, reason: str) -> Answer:
    """The answer where there is none.

    Raises:
        CellularError: the configuration wants no fallbacks.
    """
    if not config.enable_fallbacks:
        raise CellularError(f"no text for this embedding: {reason}")
    return Answer(config.fallback_text, 0.0, "fallback", reason, (), [], [])
