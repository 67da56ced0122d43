"""What a Gateway calls: models behind queues, wherever they run."""

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, Protocol


class OverloadedError(Exception):
    """A stage's queue is full."""


class UnavailableError(Exception):
    """A stage has no replica that answers."""


class BankVersion(NamedTuple):
    """One version of a bank, the same wherever it is opened."""

    folder: str
    version: str

    @property
    def id(self) -> str:
        """A name for it among the models of a replica."""
        return f"{self.folder}@{self.version}"

    @classmethod
    def of(cls, id: str) -> "BankVersion":
        """The version with this `id`."""
        folder, _, version = id.rpartition("@")
        return cls(folder, version)


class OnBank(NamedTuple):
    """Options for a decoder that has several banks, and the one to answer from."""

    bank: BankVersion
    options: Any = None


class Stage(Protocol):
    """A model behind a queue. Raises OverloadedError if that is full, UnavailableError for a lost replica."""

    async def call(self, method: str, rows: Any, *options: Any) -> Any:
        """A result for each row; rows with the same options may be computed together."""

    async def ask(self, method: str, *arguments: Any) -> Any:
        """The result of one method of one replica."""

    async def every(self, method: str, *arguments: Any) -> list[Any]:
        """The results of one method of every replica."""

    def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """What a generator method of one replica yields; closing the generator ends its work."""

    def replicas(self) -> int:
        """How many take calls, at least 1."""


class LocalStage:
    """A replica in this process as a stage."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica

    async def call(self, method: str, rows: Any, *options: Any) -> Any:
        """Await the method."""
        return await self.ask(method, rows, *options)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Await the method."""
        return await getattr(self.replica, method)(*arguments)

    async def every(self, method: str, *arguments: Any) -> list[Any]:
        """Of the one replica that there is."""
        return [await self.ask(method, *arguments)]

    def stream(self, method: str, *arguments: Any) -> AsyncGenerator[Any]:
        """The method's own generator."""
        increments: AsyncGenerator[Any] = getattr(self.replica, method)(*arguments)
        return increments

    def replicas(self) -> int:
        """The one that there is."""
        return 1
