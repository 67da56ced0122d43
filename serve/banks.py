"""Which version of each bank answers: the one that is published, once every replica has opened it.

A request carries its bank's version, and replicas open what they are asked for. So a bank is swapped by
publishing a version, which is one rename; no replica restarts, and no answer mixes two versions.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cellular.bank import current_version
from cellular.client.results import DecoderName
from cellular.errors import CellularError
from serve.problems import ProblemError
from serve.settings import BankSettings
from serve.stages import BankVersion, OnBank, Stage

logger = logging.getLogger("ray.serve.cellular")

Described = dict[str, Any]


class ServedBank(NamedTuple):
    """A version that answers.

    Attributes:
        name: of the bank.
        version: which.
        described: what each decoder says of itself with it.
    """

    name: str
    version: BankVersion
    described: Mapping[DecoderName, Described]

    @property
    def info(self) -> Described:
        """What the bank is."""
        return {**next(iter(self.described.values()))["bank"], "name": self.name}


class Banks:
    """The banks by name.

    Args:
        banks: where they are; the first answers where a request names none.
        decoders: the stages that open them; without any, no bank is served.
    """

    def __init__(self, banks: Mapping[str, BankSettings], decoders: Mapping[DecoderName, Stage]) -> None:
        self._banks = banks if decoders else {}
        self._decoders = decoders
        self._served: dict[str, ServedBank] = {}
        self._fingerprint = ""

    def __getitem__(self, name: str | None) -> ServedBank:
        """The version that answers now; 404 for an unknown name."""
        if name is not None and name not in self._served:
            detail = f"no bank {name} is served here; there is {', '.join(self._served) or 'none'}"
            raise ProblemError(404, "bank_not_found", detail, pointer="/bank")
        return self._served[name or next(iter(self._served))]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._served)

    async def open(self, fingerprint: str) -> None:
        """Serve the versions that are published now.

        Args:
            fingerprint: of the embeddings that every bank must hold, now and later.

        Raises:
            CellularError: one cannot be served.
        """
        self._fingerprint = fingerprint
        for name in self._banks:
            await self._open(name)

    async def follow(self, every_s: float) -> None:
        """Serve each version that is published, for ever; one that cannot be served is logged."""
        while True:
            await asyncio.sleep(every_s)
            for name in self._banks:
                try:
                    await self._open(name)
                except Exception as error:
                    logger.error("bank %s stays at its version: %s", name, error)

    async def _open(self, name: str) -> None:
        settings = self._banks[name]
        version = settings.version or await asyncio.to_thread(current_version, settings.folder)
        if version is None:
            raise CellularError(f"no bank in {settings.folder}: build one there, or name another folder")
        bank = BankVersion(str(settings.folder), version)
        if name not in self._served or self._served[name].version != bank:
            described = {decoder: await _opened(stage, bank) for decoder, stage in self._decoders.items()}
            for one in described.values():
                check_space(f"bank {name}", one, self._fingerprint)
            self._served[name] = ServedBank(name, bank, described)


async def _opened(stage: Stage, bank: BankVersion) -> Described:
    """What a decoder says of a bank, once all its replicas have opened it."""
    described: Described = await stage.ask("describe", OnBank(bank))  # waits for a first replica
    await stage.every("describe", OnBank(bank))
    return described


def check_space(name: str, described: Described, fingerprint: str) -> None:
    """Refuse what is made for embeddings of another teacher: CellularError."""
    made_for = described["teacher"]["fingerprint"]
    if made_for != fingerprint:
        raise CellularError(
            f"{name} is for vectors of {made_for}, but the Embedder runs {fingerprint}: set another teacher, "
            "or serve another"
        )
