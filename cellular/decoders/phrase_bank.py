"""PhraseBankDecoder: embeddings to text by the phrases of a bank."""

import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from platformdirs import user_data_path
from pydantic import ValidationError

from cellular.bank import PhraseBank, current_version
from cellular.checks import check_embeddings
from cellular.config import DecodingConfig
from cellular.decoders.context import EMPTY_SESSION, ContextPrior, Session
from cellular.decoders.engine import Engine, describe, fallback
from cellular.decoders.monitoring import Monitor
from cellular.decoders.pattern_cache import PatternCache
from cellular.decoders.results import Answer, DecodeResult
from cellular.decoders.tuning import TuningReport, tune
from cellular.errors import CellularError
from cellular.files import write_atomically
from cellular.teachers import Teacher
from cellular.types import FloatArray

log = logging.getLogger(__name__)

NO_BANK = "no phrase bank is loaded"


def default_bank_path() -> Path:
    """Where `cellular demo` keeps its bank: under $CELLULAR_HOME, or the platform's folder for user data."""
    home = os.environ.get("CELLULAR_HOME")
    return (Path(home) if home else user_data_path("cellular")) / "banks" / "demo"


def open_default_bank() -> PhraseBank:
    """The bank that `cellular demo` made.

    Raises:
        CellularError: it has not been made yet, or is damaged.
    """
    path = default_bank_path()
    if current_version(path) is None:
        raise CellularError(
            f"no phrase bank in {path}: make one with `cellular demo`, or give the path of one that "
            "`cellular bank build` made"
        )
    return PhraseBank.open(path)


class PhraseBankDecoder:
    """Turns teacher embeddings into texts made of a bank's phrases.

    An answer depends on the embedding, the configuration, the bank's version and the session, on nothing
    else. Safe for several threads.
    """

    def __init__(self, config: DecodingConfig | None = None) -> None:
        self._engine: Engine | None = None
        self._config = config or DecodingConfig()
        self._cache = PatternCache[Answer](self._config.cache_size)
        self._monitor = Monitor(self._config.enable_performance_monitoring)

    @property
    def config(self) -> DecodingConfig:
        """The settings in force."""
        return self._config

    def load_phrase_bank(
        self, bank_or_path: PhraseBank | Path | str | None = None, embedding_loader: Teacher | None = None
    ) -> None:
        """Decode from this bank from now on.

        Args:
            bank_or_path: an open bank, the folder of one, or None for the one that `cellular demo` made.
            embedding_loader: where the embeddings to decode will come from; checked to be the bank's teacher.

        Raises:
            CellularError: no bank there, a damaged one, or one of another teacher.
        """
        try:
            bank = _open(bank_or_path)
            if embedding_loader is not None:
                bank.check_teacher(embedding_loader.fingerprint)
        except CellularError as error:
            self._monitor.note_error(str(error), 0)
            raise
        self._engine = self._make_engine(bank, ContextPrior(bank))

    def decode(self, embedding: ArrayLike, *, session: Session | None = None) -> str:
        """The text of one embedding (D,), given what its session said before.

        Raises:
            ValueError: wrong shape or dtype, NaN, infinity or a zero vector.
            CellularError: there is no answer and `enable_fallbacks` is off.
        """
        if np.ndim(embedding) != 1:
            raise ValueError(f"embedding must have shape (D,), not {np.shape(embedding)}")
        engine = self._engine
        return self._answer(engine, _unit_rows(embedding, engine), [session or EMPTY_SESSION])[0].text

    def decode_batch(self, embeddings: ArrayLike, *, session: Session | None = None) -> list[DecodeResult]:
        """Texts of N embeddings (N, D), with scores, phrases and candidates; none sees the others.

        Raises:
            ValueError: wrong shape or dtype, NaN, infinity or a zero vector; names the row.
            CellularError: there is no answer and `enable_fallbacks` is off.
        """
        engine = self._engine
        rows = _unit_rows(embeddings, engine)
        answers = self._answer(engine, rows, [session or EMPTY_SESSION] * len(rows))
        return [describe(answer, engine.bank if engine else None) for answer in answers]

    def batch_decode_with_sessions(
        self, embeddings: ArrayLike, session_boundaries: Sequence[int] = (0,)
    ) -> list[str]:
        """Texts of several sessions' embeddings, each decoded with the texts before it in its session.

        Args:
            embeddings: (N, D), session after session.
            session_boundaries: where each session starts: 0 first, ascending; N may end the list.

        Raises:
            ValueError: as `decode_batch`, or boundaries that do not divide the rows.
        """
        engine = self._engine
        rows = _unit_rows(embeddings, engine)
        bounds = _session_bounds(session_boundaries, len(rows))
        if not (engine and engine.uses_session):
            return [answer.text for answer in self._answer(engine, rows, [EMPTY_SESSION] * len(rows))]
        texts = [""] * len(rows)
        sessions = dict.fromkeys(bounds, Session(capacity=self._config.context_turns))
        for turn in range(max((end - start for start, end in bounds), default=0)):
            live = [bound for bound in bounds if bound[0] + turn < bound[1]]
            at = [start + turn for start, _ in live]
            answers = self._answer(engine, rows[at], [sessions[bound] for bound in live])
            for bound, row, answer in zip(live, at, answers, strict=True):
                texts[row] = answer.text
                sessions[bound] = sessions[bound].after(rows[row], answer.text)
        return texts

    def get_health_status(self) -> dict[str, object]:
        """Whether it can decode, from what, and the last error; JSON-serialisable."""
        status: dict[str, object] = {
            "status": "healthy" if self._engine else "unloaded",
            "bank_loaded": self._engine is not None,
            "assembly_method": self._config.assembly_method,
            "last_error": self._monitor.last_error,
        }
        if self._engine:
            bank = self._engine.bank
            status |= {
                "bank": str(bank.path),
                "version": bank.version,
                "phrases": len(bank),
                "teacher": bank.manifest.teacher.name,
                "fingerprint": bank.fingerprint,
            }
        return status

    def get_statistics(self) -> dict[str, object]:
        """Counts by source and reason, error rate, percentiles by stage, the cache; JSON-serialisable."""
        return {**self._monitor.statistics(), "cache": self._cache.statistics()}

    def optimize_for_production(self) -> TuningReport:
        """Measure on this machine, and set search effort, threads and cache size accordingly.

        Threads are those of FAISS, for the whole process. The decoder's other settings stay as they are.

        Returns:
            What was measured and chosen; also logged.

        Raises:
            CellularError: no bank is loaded.
        """
        if self._engine is None:
            raise CellularError("load a phrase bank before optimising: load_phrase_bank(path)")
        report = tune(self._engine.bank, self._config)
        log.info("optimised for production: %s", report)
        chosen = {"search_effort": report.search_effort, "cache_size": report.cache_size}
        self._configure(self._config.model_copy(update=chosen))
        return report

    def save_config(self, path: Path | str) -> None:
        """Write the settings as JSON, in one step."""
        write_atomically(Path(path), self._config.model_dump_json(indent=2).encode())

    def load_config(self, path: Path | str) -> None:
        """Take the settings of a file that `save_config` wrote.

        Raises:
            CellularError: no such file, or it is not valid.
        """
        try:
            config = DecodingConfig.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise CellularError(f"cannot read the decoding settings {path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the file"
            raise CellularError(f"{path} holds no decoding settings: {field}: {first['msg']}") from error
        self._configure(config)

    def _configure(self, config: DecodingConfig) -> None:
        if config.cache_size != self._config.cache_size:
            self._cache = PatternCache(config.cache_size)
        if config.enable_performance_monitoring != self._config.enable_performance_monitoring:
            self._monitor = Monitor(config.enable_performance_monitoring)
        self._config = config
        if self._engine:
            self._engine = self._make_engine(self._engine.bank, self._engine.prior)

    def _make_engine(self, bank: PhraseBank, prior: ContextPrior) -> Engine:
        cache = self._cache if self._config.enable_caching else None
        return Engine(bank, prior, self._config, cache, self._monitor)

    def _answer(self, engine: Engine | None, rows: FloatArray, sessions: Sequence[Session]) -> list[Answer]:
        if engine:
            return engine.answer(rows, sessions)
        answers = [fallback(self._config, NO_BANK)] * len(rows)
        self._monitor.count(answers)
        return answers


def _unit_rows(embeddings: ArrayLike, engine: Engine | None) -> FloatArray:
    """(N, D) float32 of unit length."""
    dimension = engine.bank.dimension if engine else (np.shape(embeddings) or (0,))[-1]
    return check_embeddings(embeddings, dimension)


def _open(bank_or_path: PhraseBank | Path | str | None) -> PhraseBank:
    if isinstance(bank_or_path, PhraseBank):
        return bank_or_path
    return open_default_bank() if bank_or_path is None else PhraseBank.open(bank_or_path)


def _session_bounds(starts: Sequence[int], rows: int) -> list[tuple[int, int]]:
    """(start, end) of each session."""
    offsets = list(starts)
    if not offsets or offsets[0] != 0 or sorted(set(offsets)) != offsets or offsets[-1] > rows:
        raise ValueError(f"session boundaries must start at 0 and ascend to at most {rows}, not {offsets}")
    return [(start, end) for start, end in pairwise([*offsets, rows]) if start < end]
