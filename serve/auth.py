"""API keys: several, kept as hashes in a file that is read again when it changes.

A key is 256 random bits, so that one round of SHA-256 hides it; passwords of people would need more.
"""

import hashlib
import hmac
import logging
import re
import secrets
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from cellular.errors import CellularError
from serve.problems import ProblemError, problem_response

LINE = re.compile(r"sha256:([0-9a-f]{64})(\s.*)?")
logger = logging.getLogger("ray.serve.cellular")


def new_key() -> str:
    """A key that nobody guesses."""
    return f"cellular-{secrets.token_urlsafe(32)}"


def key_line(key: str, name: str) -> str:
    """The line of the file that admits a key; `name` tells people whose it is."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}  {name}\n"


class ApiKeys:
    """The keys that a file admits: a line `sha256:HASH  name` for each.

    Keys are rotated by adding a line, moving the clients over, and removing the old one. A file that is wrong
    or away for a moment changes nothing.

    Args:
        path: the file.

    Raises:
        CellularError: it cannot be read, or holds anything else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = self._file_state()
        self._hashes = self._read()

    def accept(self, key: str) -> bool:
        """Whether the key is one of them; takes the same time whichever it is."""
        self._refresh()
        given = hashlib.sha256(key.encode()).hexdigest()
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        return any(matches)

    def _refresh(self) -> None:
        state = self._file_state()
        if state == self._state:
            return
        self._state = state
        try:
            self._hashes = self._read()
        except CellularError as error:
            logger.error("the API keys stay as they were: %s", error)

    def _file_state(self) -> tuple[int, ...]:
        """Changes whenever the file is written or replaced."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> list[str]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CellularError(f"cannot read the API keys in {self.path}: {error}") from error
        matches = [LINE.fullmatch(line) for line in lines if line.strip() and not line.startswith("#")]
        hashes = [match[1] for match in matches if match is not None]
        if len(hashes) < len(matches):
            raise CellularError(
                f"{self.path} must hold lines of `sha256:HASH  name`: make them with `cellular api-key`"
            )
        return hashes


class KeyRequired:
    """ASGI middleware: refuses requests without a key with 401, before their bodies are read.

    Args:
        app: what is behind it.
        keys: those that are admitted.
        open_paths: what needs none; one that ends with / opens all below it, but / opens itself alone.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, open_paths: tuple[str, ...]) -> None:
        self.app = app
        self.keys = keys
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        app = self.app if self._admitted(scope) else problem_response(scope["path"], unauthorized())
        await app(scope, receive, send)

    def _admitted(self, scope: Scope) -> bool:
        if scope["type"] != "http" or self._open(scope["path"]):
            return True
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.keys.accept(key.strip())

    def _open(self, path: str) -> bool:
        folders = tuple(one for one in self.open_paths if one.endswith("/") and one != "/")
        return path in self.open_paths or path.startswith(folders)


def unauthorized() -> ProblemError:
    """For no key, and for a wrong one."""
    detail = "send one of this application's API keys: Authorization: Bearer KEY"
    return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
