"""An engine whose facts and reports are encrypted with the keys of the ledger (`broker.ledger.encryption`).

Bodies are encrypted as they are written to the engine and decrypted as they are read. The name of the log is
authenticated, so that a body of one room is none of another. Names of rooms and users, times, numbers and what goes
over channels, which the engine does not keep, are not encrypted. A node that meets a key which it does not have reads
its key file again, for another node may have been given a newer one first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import structlog

from broker.config.files import FileError
from broker.engine.base import (
    AppendResult,
    Engine,
    EngineRefused,
    LogItem,
    OutboxItem,
    StoredLogItem,
    StoredOutboxItem,
)
from broker.ledger import LedgerDamaged, LedgerRefused
from broker.ledger.encryption import BodyCipher, key_of
from broker.ledger.key_file import LedgerKeys

__all__ = ["LogCipher", "sealed_engine"]

log = structlog.get_logger("roomcast.engine")


class LogCipher:
    """Encrypts what one node writes to the engine. ``keys``: returns the keys of its ledger, None = nothing is
    encrypted; ``use``: gives the ledger others; ``seen``: gets the ids of the keys of all that was read and written."""

    def __init__(
        self, keys: Callable[[], LedgerKeys | None], use: Callable[[LedgerKeys], object], seen: set[bytes]
    ) -> None:
        self._keys = keys
        self._use = use
        self._seen = seen
        self._cipher = BodyCipher("the engine")

    @property
    def encrypts(self) -> bool:
        """Whether what is written is encrypted."""
        return self._keys() is not None

    def encrypt(self, name: str, body: bytes) -> bytes:
        """Return a body of a log as the engine is to keep it."""
        self._follow()
        sealed = self._cipher.encrypt(name, body)
        self._seen.update(self._cipher.used)
        return sealed

    def decrypt(self, name: str, stored: bytes) -> bytes:
        """Return a body as it was written. EngineRefused where this node cannot read it."""
        key_id = key_of(stored)
        if key_id is None:
            return stored
        self._follow()
        if not self._cipher.has(key_id):
            self._read_again()
        try:
            body = self._cipher.decrypt(name, stored)
        except (LedgerRefused, LedgerDamaged) as error:
            raise EngineRefused(str(error)) from error
        self._seen.add(key_id)
        return body

    def _follow(self) -> None:
        """Use the keys that the ledger has now."""
        keys = self._keys()
        if keys is not self._cipher.keys:
            self._cipher.use(keys)

    def _read_again(self) -> None:
        """Use the keys that the file has now: another node was given one first."""
        keys = self._keys()
        if keys is None:
            return
        try:
            self._use(LedgerKeys.read(keys.source))
        except (FileError, OSError, LedgerRefused) as error:
            log.error("the file of the ledger's keys cannot be used", why=str(error))
        self._follow()


class _SealedEngine:
    """An engine that encrypts; everything else it has of ``engine``."""

    def __init__(self, engine: Engine, cipher: LogCipher) -> None:
        self._engine = engine
        self._cipher = cipher

    def __getattr__(self, name: str) -> Any:  # Any: what the engine has
        return getattr(self._engine, name)

    async def append(
        self,
        room: str,
        fence: int,
        last_offset: int,
        last_fact: int,
        items: Sequence[LogItem],
        outbox: Sequence[OutboxItem] = (),
    ) -> AppendResult:
        """See `Engine.append`."""
        if self._cipher.encrypts:
            log_name, outbox_name = f"log {room}", f"outbox {room}"
            items = [item._replace(body=self._cipher.encrypt(log_name, item.body)) for item in items]
            outbox = [row._replace(body=self._cipher.encrypt(outbox_name, row.body)) for row in outbox]
        return await self._engine.append(room, fence, last_offset, last_fact, items, outbox)

    async def read_facts(self, room: str, number: int, count: int) -> Sequence[StoredLogItem]:
        """See `Engine.read_facts`."""
        found = await self._engine.read_facts(room, number, count)
        return [fact._replace(body=self._cipher.decrypt(f"log {room}", fact.body)) for fact in found]

    async def read_outbox(self, room: str, after: str, count: int) -> Sequence[StoredOutboxItem]:
        """See `Engine.read_outbox`."""
        found = await self._engine.read_outbox(room, after, count)
        return [row._replace(body=self._cipher.decrypt(f"outbox {room}", row.body)) for row in found]


def sealed_engine(engine: Engine, cipher: LogCipher) -> Engine:
    """Return an engine whose facts and reports are encrypted."""
    return cast(Engine, _SealedEngine(engine, cipher))
