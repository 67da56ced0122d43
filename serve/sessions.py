"""Sessions as a Gateway knows them; the SessionStore has the last word."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from actors.session_store import Commit
from cellular.decoders.context import Session
from serve.settings import Sessions
from serve.stages import Stage

Answer = TypeVar("Answer")
Answering = Callable[[Session], Awaitable[tuple[Answer, Session]]]


class SessionCache:
    """The sessions that this Gateway answered last.

    Args:
        store: where they are kept.
        settings: how many turns and sessions are kept.
    """

    def __init__(self, store: Stage, settings: Sessions) -> None:
        self.store = store
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._number = settings.number
        self._new = Session(capacity=settings.turns)

    async def answer(self, id: str, answering: Answering[Answer]) -> Answer:
        """What `answering` makes of a session, once the session that it leaves is stored.

        Asks again where the session had been continued elsewhere: a session is the same as if its requests
        had come one after the other, whichever Gateway and decoder answered them.
        """
        session = self._known.get(id, self._new)
        while True:
            answer, after = await answering(session)
            (stored,) = await self.store.call("commit", [Commit(id, session, after)])
            if stored is None:
                self._remember(id, after)
                return answer
            session = stored if stored.turns else self._new

    def _remember(self, id: str, session: Session) -> None:
        self._known[id] = session
        self._known.move_to_end(id)
        if len(self._known) > self._number:
            self._known.popitem(last=False)
