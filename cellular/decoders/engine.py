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
from cellular.decoders.pattern_cache import PatternCache
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
        pasts = [session.digest if self.uses_session else b"" for session in sessions]
        keys = [cache.key(row, self._setup, past) for row, past in zip(rows, pasts, strict=True)]
        known = [cache.get(key, row) for key, row in zip(keys, rows, strict=True)]
        self._monitor.time("cache", perf_counter() - started)
        missing = [number for number, answer in enumerate(known) if answer is None]
        if len(missing) == len(known):
            fresh = self._resolve(rows, sessions)
        else:
            fresh = self._resolve(rows[missing], [sessions[n] for n in missing]) if missing else []
        for number, answer in zip(missing, fresh, strict=True):
            if answer.source == "bank":
                cache.put(keys[number], rows[number], answer)
        rest = iter(fresh)
        return [next(rest) if answer is None else answer._replace(source="cache") for answer in known]

    def _resolve(self, rows: FloatArray, sessions: Sequence[Session]) -> list[Answer]:
        started = perf_counter()
        try:
            pools = gather(self.bank, rows, self._assembler, self._config)
            gathered = perf_counter()
            chosen = [self._assemble(*pair) for pair in zip(pools, sessions, strict=True)]
            assembled = perf_counter()
            answers = [self._finish(*pair) for pair in zip(pools, chosen, strict=True)]
        except Exception as error:  # whatever fails, a valid embedding has a defined answer
            log.exception("decoding failed")
            self._monitor.note_error(f"{type(error).__name__}: {error}", len(rows))
            return [fallback(self._config, f"decoding failed: {error}")] * len(rows)
        self._monitor.time("search", gathered - started)
        self._monitor.time("assemble", assembled - gathered)
        self._monitor.time("postprocess", perf_counter() - assembled)
        return [answer or fallback(self._config, BELOW_THRESHOLD) for answer in answers]

    def _assemble(self, pool: Pool | None, session: Session) -> Assembly | None:
        if pool is None:
            return None
        prior = None
        if self.uses_session and session.turns:
            prior = self._config.context_weight * self.prior(pool, session.latest(self._config.context_turns))
        assembly = self._assembler.choose(pool, self._config, prior)
        return assembly if assembly.score >= self._config.min_score else None

    def _finish(self, pool: Pool | None, assembly: Assembly | None) -> Answer | None:
        if pool is None or assembly is None:
            return None
        phrases = self.bank.phrases(assembly.phrases)
        text = join_phrases(phrases) if self._config.enable_postprocessing else " ".join(phrases)
        listed = min(self._config.listed_candidates, pool.found)
        ids, scores = pool.ids[:listed].tolist(), pool.scores[:listed].tolist()
        return Answer(text, assembly.score, "bank", None, assembly.phrases, ids, scores)


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
