"""Revocation of tokens: at once in memory, durable where there is a ledger, and for open connections too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog
import trio

from broker.core.tenants.names import plain_name, qualify, split_name
from broker.core.users.revocations import Revocation, RevocationTable, RevokedToken
from broker.ledger import Committed, Item, Ledger, LedgerResult, Reader, RecordPut, RecordRemoved, SubmitResult
from broker.ledger.pending import PendingResult
from broker.ledger.records import PAGE, all_records, remove_records
from protocol.frames import pack_body

__all__ = ["KIND", "TOKEN_KIND", "Revocations"]

log = structlog.get_logger("roomcast.users")

KIND = "users.revoked"
TOKEN_KIND = "tokens.revoked"
_LATER_MS = 60_000
"""How long a token is known as revoked beyond its end: longer than any `auth.leeway_s`, for which it is still good."""


class Revocations:
    """The revocations of one broker. ``ledger`` None: they end with the process."""

    def __init__(self, ledger: Ledger | None, unix_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._unix_ms = unix_ms
        self.table = RevocationTable()
        self.refused_users: set[str] = set()
        """Users (qualified ids) who are being erased: their tokens are refused, and calls that name them have to be
        repeated later."""

    async def load(self) -> None:
        """Take over those of the last run. At the start, before connections are accepted."""
        if self._ledger is None:
            return
        found = await self._ledger.ask(_read)
        for revocation in found:
            self.table.revoke(revocation)
        self.table.restore_tokens(await self._ledger.ask(_read_tokens))
        ended = self.table.end_tokens(self._unix_ms())
        remove_records(self._ledger, [RecordRemoved(TOKEN_KIND, qualify(each.tenant, each.jti), "") for each in ended])
        if len(self.table):
            log.info("revocations restored", revocations=len(self.table))

    def is_revoked(self, tenant: str, user_id: str, issued_at_s: int, jti: str = "") -> bool:
        """Return whether a token of the user with this qualified id is revoked. ``jti``: of the token, "" = none."""
        if self.refused_users and user_id in self.refused_users:
            return True
        return self.table.is_revoked(tenant, plain_name(user_id), issued_at_s, jti)

    @contextmanager
    def refusing(self, user: str) -> Iterator[None]:
        """Context in which a user (qualified id) is not to come back, whatever token it has: see `refused_users`."""
        self.refused_users.add(user)
        try:
            yield
        finally:
            self.refused_users.discard(user)

    async def erase(self, tenant: str, user: str, before_ms: int) -> bool:
        """Revoke the tokens of a user (plain id) that is erased, in a form that does not name it; the record of an
        earlier revocation stays for its caller to remove. Returns as `revoke`."""
        return await self.revoke(self.table.erase(tenant, user, before_ms))

    async def revoke(self, revocation: Revocation) -> bool:
        """Add a revocation: it holds at once; returns whether it also holds after a restart, or there is no ledger."""
        added, removed = self.table.revoke(revocation)
        if not added:
            return True
        items: list[Item] = [
            RecordPut(KIND, _subject(each), "", each.before_ms, pack_body((each.before_ms,))) for each in added
        ]
        items += [RecordRemoved(KIND, _subject(each), "") for each in removed]
        return await self._keep(items)

    async def revoke_token(self, tenant: str, jti: str, expires_at_ms: int) -> bool:
        """Revoke the token of a tenant with an id, which expires then. Returns as `revoke`; TooManyTokens."""
        token = RevokedToken(tenant, jti, expires_at_ms + _LATER_MS)
        added, ended = self.table.revoke_token(token, self._unix_ms())
        items: list[Item] = [
            RecordPut(TOKEN_KIND, qualify(tenant, jti), "", each.ends_ms, pack_body(())) for each in added
        ]
        items += [RecordRemoved(TOKEN_KIND, qualify(each.tenant, each.jti), "") for each in ended]
        return await self._keep(items)

    async def _keep(self, items: Sequence[Item]) -> bool:
        """Make items durable; returns whether they are, or there is no ledger."""
        if self._ledger is None:
            return True
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


def _read_tokens(reader: Reader) -> list[RevokedToken]:
    """Return all recorded tokens. Runs in the ledger's reading thread."""
    return [RevokedToken(*split_name(record.subject), record.at_ms) for record in all_records(reader, TOKEN_KIND)]


def _read(reader: Reader) -> list[Revocation]:
    """Return all recorded revocations. Runs in the ledger's reading thread."""
    return [Revocation(*split_name(record.subject), record.at_ms) for record in all_records(reader, KIND)]
