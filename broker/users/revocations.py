"""Revocation of tokens: at once in memory, durable where there is a ledger, and for open connections too."""

from __future__ import annotations

import structlog
import trio

from broker.core.tenants.names import plain_name, qualify, split_name
from broker.core.users.revocations import Revocation, RevocationTable
from broker.ledger import Committed, Item, Ledger, LedgerResult, Reader, RecordPut, RecordRemoved, SubmitResult
from broker.ledger.pending import PendingResult
from broker.ledger.records import PAGE, all_records
from protocol.frames import pack_body

__all__ = ["KIND", "Revocations"]

log = structlog.get_logger("roomcast.users")

KIND = "users.revoked"


class Revocations:
    """The revocations of one broker. ``ledger`` None: they end with the process."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self.table = RevocationTable()

    async def load(self) -> None:
        """Take over those of the last run. At the start, before connections are accepted."""
        if self._ledger is None:
            return
        found = await self._ledger.ask(_read)
        for revocation in found:
            self.table.revoke(revocation)
        if found:
            log.info("revocations restored", revocations=len(self.table))

    def is_revoked(self, tenant: str, user_id: str, issued_at_s: int) -> bool:
        """Return whether a token of the user with this qualified id is revoked."""
        return self.table.is_revoked(tenant, plain_name(user_id), issued_at_s)

    async def erase(self, tenant: str, user: str, before_ms: int) -> bool:
        """Revoke the tokens of a user (plain id) that is erased, in a form that does not name it; the record of an
        earlier revocation stays for its caller to remove. Returns as `revoke`."""
        return await self.revoke(self.table.erase(tenant, user, before_ms))

    async def revoke(self, revocation: Revocation) -> bool:
        """Add a revocation: it holds at once; returns whether it also holds after a restart, or there is no ledger."""
        added, removed = self.table.revoke(revocation)
        if self._ledger is None or not added:
            return True
        items: list[Item] = [
            RecordPut(KIND, _subject(each), "", each.before_ms, pack_body((each.before_ms,))) for each in added
        ]
        items += [RecordRemoved(KIND, _subject(each), "") for each in removed]
        for start in range(0, len(items), PAGE):
            pending = PendingResult[LedgerResult]()
            if self._ledger.record(items[start : start + PAGE], pending.set) is not SubmitResult.QUEUED:
                return False
            if not isinstance(await pending.wait(), Committed):
                return False
            await trio.lowlevel.checkpoint()
        return True


def _subject(revocation: Revocation) -> str:
    return qualify(revocation.tenant, revocation.user)


def _read(reader: Reader) -> list[Revocation]:
    """Return all recorded revocations. Runs in the ledger's reading thread."""
    return [Revocation(*split_name(record.subject), record.at_ms) for record in all_records(reader, KIND)]
