"""Sessions as a worker: what dialogues have said, in one SQLite table.

A Gateway that knows a session answers from what it knows, then commits: that is one call. Only where another
Gateway was faster, or the session has been forgotten, does it learn so and answer again (optimistic
concurrency, Kung and Robinson 1981).
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cellular.decoders.context import EMPTY_SESSION, Session
from cellular.errors import CellularError

TABLE = """
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, session TEXT NOT NULL, used REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS by_use ON sessions (used);
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
"""


class Commit(NamedTuple):
    """What a session became.

    Attributes:
        id: of the session.
        before: what the answer was made from.
        after: with the answer.
    """

    id: str
    before: Session
    after: Session


class SessionStore:
    """Keeps the latest sessions.

    Args:
        file: where; it outlives this worker. None: in memory.
        number: sessions; beyond them the one that was used longest ago is forgotten.
        age_s: seconds without use after which a session is forgotten.
        now: seconds since a fixed time.

    Raises:
        CellularError: the file cannot be written, or is something else.
    """

    def __init__(
        self, file: Path | None, number: int, age_s: float, now: Callable[[], float] = time.time
    ) -> None:
        self._number, self._age_s, self._now = number, age_s, now
        try:
            # Batches come one after the other, but each in a thread of its own.
            self._database = sqlite3.connect(file or ":memory:", check_same_thread=False)
            self._database.executescript(TABLE)
        except sqlite3.Error as error:
            raise CellularError(
                f"cannot keep sessions in {file} ({error}): name another file, or none"
            ) from error

    def commit(self, commits: Sequence[Commit]) -> list[Session | None]:
        """Store each session that is still what its commit was made from.

        A commit that is already stored is done: one that is repeated after a lost answer changes nothing.

        Returns:
            For each commit None where it is done, else the session as it is.
        """
        with self._database:
            self._database.execute("DELETE FROM sessions WHERE used < ?", (self._now() - self._age_s,))
            answers = [self._commit(one) for one in commits]
            self._database.execute(
                "DELETE FROM sessions WHERE id IN "
                "(SELECT id FROM sessions ORDER BY used DESC LIMIT -1 OFFSET ?)",
                (self._number,),
            )
        return answers

    def describe(self) -> dict[str, Any]:
        """How many there are, and the most there may be."""
        ((count,),) = self._database.execute("SELECT count(*) FROM sessions")
        return {"sessions": count, "number": self._number, "age_s": self._age_s}

    def _commit(self, commit: Commit) -> Session | None:
        row = self._database.execute("SELECT session FROM sessions WHERE id = ?", (commit.id,)).fetchone()
        stored = Session.model_validate_json(row[0]) if row else EMPTY_SESSION
        if stored.digest == commit.after.digest:
            return None
        if stored.digest != commit.before.digest:
            return stored
        self._database.execute(
            "INSERT INTO sessions VALUES (?, ?, ?) ON CONFLICT (id) "
            "DO UPDATE SET session = excluded.session, used = excluded.used",
            (commit.id, commit.after.model_dump_json(), self._now()),
        )
        return None
