"""Locks of rooms: requests wait here, and what is decided becomes durable before it is answered.

Without a ledger locks end with the process, and fences go on from the time of day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import structlog
import trio

from broker.core.clock import TrustedClock
from broker.core.rooms.locks import LockFreed, LockGrant, LockName, LockRefused, LockRequest, LockTable
from broker.ledger import (
    Committed,
    Item,
    Ledger,
    LedgerResult,
    Reader,
    RecordPut,
    RecordRemoved,
    StoredRecord,
    SubmitResult,
)
from broker.ledger.pending import PendingResult
from broker.ledger.records import read_records, remove_records
from protocol.codes import ErrorCode
from protocol.frames import pack_body, unpack_body

__all__ = ["FENCE_KIND", "KIND", "Locks"]

log = structlog.get_logger("roomcast.locks")

KIND, FENCE_KIND = "lock", "lock.fence"
SWEEP_EVERY_S = 10.0
_NOT_KEPT = LockRefused(ErrorCode.OVERLOADED, "the ledger cannot take it now", 1000)


class Locks:
    """The locks of one broker. ``clock``: monotonic seconds."""

    def __init__(self, ledger: Ledger | None, clock: Callable[[], float], trusted: TrustedClock) -> None:
        self.table = LockTable()
        self._ledger = ledger
        self._clock = clock
        self._trusted = trusted
        self._turns: dict[LockRequest, trio.Event] = {}
        self._sweep_at = 0.0
        self.acquired = 0
        """Locks given so far."""
        self.timed_out = 0
        """Requests whose wait ended without the lock."""

    async def load(self) -> None:
        """Take over the locks of the last run. At the start, before requests are accepted."""
        if self._ledger is None:
            return
        self.table = LockTable()  # another node may have had the locks since
        grants, last_fence = await self._ledger.ask(_read_locks)
        now_ms = None if self._trusted.distrust() else self._trusted.now_ms()
        self._forget(self.table.restore(grants, last_fence, self._clock(), now_ms))
        if grants:
            log.info("locks restored", locks=len(self.table))

    async def acquire(self, name: LockName, owner: str, ttl_ms: int, wait_ms: int) -> LockGrant | LockRefused:
        """Acquire a lock for ``ttl_ms``, or wait for it for up to ``wait_ms``."""
        self._sweep()
        deadline = self._clock() + wait_ms / 1000
        found = self.table.acquire(name, owner, ttl_ms, self._clock(), self._trusted.now_ms(), waits=wait_ms > 0)
        if isinstance(found, LockRequest):
            found = await self._wait(found, deadline)
        if isinstance(found, LockRefused):
            return found
        try:
            is_kept = await self._record(found, (_put(found), _fence(self.table.last_fence)))
        except BaseException:
            self._abandon(found)
            raise
        if not is_kept:
            return _NOT_KEPT
        self.acquired += 1
        return found

    async def renew(self, fence: int, owner: str, ttl_ms: int) -> LockGrant | LockRefused:
        """Let a lock end ``ttl_ms`` from now."""
        found = self.table.renew(fence, owner, ttl_ms, self._clock(), self._trusted.now_ms())
        if isinstance(found, LockRefused):
            return found
        return found if await self._record(found, (_put(found),)) else _NOT_KEPT

    async def release(self, fence: int, owner: str) -> LockFreed | LockRefused:
        """Release a lock; the request that waits longest gets it."""
        found = self.table.release(fence, owner, self._clock())
        if isinstance(found, LockRefused):
            return found
        return found if await self._record(found, (_removal(found),)) else _NOT_KEPT

    # ---- waiting

    async def _wait(self, waiter: LockRequest, deadline: float) -> LockGrant | LockRefused:
        try:
            while waiter.grant is None:
                now = self._clock()
                if now >= deadline:
                    self.timed_out += 1
                    return LockRefused(ErrorCode.LOCKED, "another caller holds it, also after the wait", 200)
                due = self.table.next_due(waiter.name) if self.table.first(waiter.name) is waiter else inf
                turn = self._turns[waiter] = trio.Event()
                with trio.move_on_after(max(0.0, min(deadline, due) - now)):
                    await turn.wait()
                self._advance(waiter.name)
            return waiter.grant
        except BaseException:
            if waiter.grant is not None:
                self._abandon(waiter.grant)
            raise
        finally:
            self._turns.pop(waiter, None)
            self.table.cancel(waiter)
            self._wake_first(waiter.name)

    def _advance(self, name: LockName) -> None:
        served = self.table.advance(name, self._clock(), self._trusted.now_ms())
        if served is not None:
            if served in self._turns:
                self._turns[served].set()
            self._wake_first(name)

    def _wake_first(self, name: LockName) -> None:
        """Let the request that is first in a queue now see when the lock ends."""
        first = self.table.first(name)
        if first is not None and first in self._turns:
            self._turns[first].set()

    # ---- the ledger

    async def _record(self, fact: LockGrant | LockFreed, items: Sequence[Item]) -> bool:
        """Make a fact durable; returns whether it holds. The table and its queue go on however the wait ends."""
        if self._ledger is None:
            return self._on_result(fact, Committed())
        pending = PendingResult[bool]()
        submitted = self._ledger.record(items, lambda result: pending.set(self._on_result(fact, result)))
        if submitted is not SubmitResult.QUEUED:
            self.table.give_up(fact)
            self._advance(fact.name)
            return False
        return await pending.wait()

    def _on_result(self, fact: LockGrant | LockFreed, result: LedgerResult) -> bool:
        holds = isinstance(result, Committed) and self.table.commit(fact, self._clock())
        if not isinstance(result, Committed):
            self.table.give_up(fact)
        self._advance(fact.name)
        return holds

    def _abandon(self, grant: LockGrant) -> None:
        """Release a lock whose caller is gone before it was answered."""
        found = self.table.release(grant.fence, grant.owner, self._clock())
        if isinstance(found, LockFreed):
            self.table.commit(found, self._clock())
            self._forget([found])
            self._advance(grant.name)

    def _sweep(self) -> None:
        now = self._clock()
        if now >= self._sweep_at:
            freed = self.table.sweep(now)
            self._forget(freed)
            self._sweep_at = now + (0.0 if freed else SWEEP_EVERY_S)

    def _forget(self, freed: Sequence[LockFreed]) -> None:
        """Remove what has ended from the ledger; what it cannot take now is found ended at the next start."""
        if self._ledger is not None:
            remove_records(self._ledger, [_removal(each) for each in freed])


def _put(grant: LockGrant) -> RecordPut:
    body = grant.fence, grant.owner, grant.ttl_ms, grant.expires_at_ms, grant.name.tenant
    return RecordPut(KIND, grant.name.room, grant.name.name, grant.expires_at_ms - grant.ttl_ms, pack_body(body))


def _fence(last: int) -> RecordPut:
    return RecordPut(FENCE_KIND, "", "", last, pack_body((last,)))


def _removal(freed: LockFreed) -> RecordRemoved:
    return RecordRemoved(KIND, freed.name.room, freed.name.name)


def _read_locks(reader: Reader) -> tuple[list[LockGrant], int]:
    """Return all recorded locks, and the highest fence. Runs in the ledger's reading thread."""
    last_fence = 0
    for record in reader.records(FENCE_KIND):
        last_fence = unpack_body(record.body)[0]
    return list(read_records(reader, KIND, _grant)), last_fence


def _grant(record: StoredRecord, body: Sequence[Any]) -> LockGrant:
    fence, owner, ttl_ms, expires_at_ms, tenant, *_ = body
    return LockGrant(LockName(tenant, record.subject, record.name), fence, owner, ttl_ms, expires_at_ms)
