"""One configuration over one bank: the way from checked embeddings to results."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from cellular.bank import PhraseBank
from cellular.config import DecodingConfig
from cellular.decoders.assembly import ASSEMBLERS, Assembly, Pool, gather
from cellular.decoders.context import ContextPrior, Session
from cellular.decoders.monitoring import Monitor
from cellular.decoders.pattern_cache import PatternCache
from cellular.decoders.postprocess import join_phrases
from cellular.decoders.results import Candidate, DecodeResult
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
        cache: PatternCache[DecodeResult] | None,
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

    def decode(self, rows: FloatArray, sessions: Sequence[Session]) -> list[DecodeResult]:
        """Results of unit vectors (N, D), each with its session's past."""
        if self._cache is None:
            results = self._resolve(rows, sessions)
        else:
            results = self._look_up(self._cache, rows, sessions)
        self._monitor.count(results)
        return results

    def _look_up(
        self, cache: PatternCache[DecodeResult], rows: FloatArray, sessions: Sequence[Session]
    ) -> list[DecodeResult]:
        with self._monitor.stage("cache"):
            pasts = [session.digest if self.uses_session else b"" for session in sessions]
            keys = [cache.key(row, self._setup, past) for row, past in zip(rows, pasts, strict=True)]
            known = [cache.get(key, row) for key, row in zip(keys, rows, strict=True)]
        missing = [number for number, result in enumerate(known) if result is None]
        if not missing:
            return [result for result in known if result is not None]
        fresh = self._resolve(rows[missing], [sessions[number] for number in missing])
        for number, result in zip(missing, fresh, strict=True):
            known[number] = result
            if result.source == "bank":
                cache.put(keys[number], rows[number], replace(result, source="cache"))
        return [result for result in known if result is not None]

    def _resolve(self, rows: FloatArray, sessions: Sequence[Session]) -> list[DecodeResult]:
        try:
            with self._monitor.stage("search"):
                pools = gather(self.bank, rows, self._assembler, self._config)
            with self._monitor.stage("assemble"):
                chosen = [self._assemble(*pair) for pair in zip(pools, sessions, strict=True)]
        except Exception as error:  # whatever fails, a valid embedding has a defined answer
            log.exception("decoding failed")
            self._monitor.note_error(f"{type(error).__name__}: {error}", len(rows))
            return [self._fall_back(f"decoding failed: {error}")] * len(rows)
        with self._monitor.stage("postprocess"):
            return [self._result(*pair) for pair in zip(pools, chosen, strict=True)]

    def _assemble(self, pool: Pool | None, session: Session) -> Assembly | None:
        if pool is None:
            return None
        prior = None
        if self.uses_session and session.turns:
            prior = self._config.context_weight * self.prior(pool, session.latest(self._config.context_turns))
        assembly = self._assembler.choose(pool, self._config, prior)
        return assembly if assembly.score >= self._config.min_score else None

    def _result(self, pool: Pool | None, assembly: Assembly | None) -> DecodeResult:
        if pool is None or assembly is None:
            return self._fall_back(BELOW_THRESHOLD)
        phrases = self.bank.phrases(assembly.phrases)
        text = join_phrases(phrases) if self._config.enable_postprocessing else " ".join(phrases)
        return DecodeResult(text, assembly.score, "bank", None, assembly.phrases, self._candidates(pool))

    def _candidates(self, pool: Pool) -> tuple[Candidate, ...]:
        ids = pool.ids[: min(self._config.listed_candidates, pool.found)].tolist()
        scores = pool.scores[: len(ids)].tolist()
        return tuple(map(Candidate, ids, self.bank.phrases(ids), scores))

    def _fall_back(self, reason: str) -> DecodeResult:
        return fallback(self._config, reason)


def fallback(config: DecodingConfig, reason: str) -> DecodeResult:
    """The answer where there is none.

    Raises:
        CellularError: the configuration wants no fallbacks.
    """
    if not config.enable_fallbacks:
        raise CellularError(f"no text for this embedding: {reason}")
    return DecodeResult(config.fallback_text, 0.0, "fallback", reason)
