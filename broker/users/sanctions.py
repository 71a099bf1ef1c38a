"""Sanctions of users: each change is durable before it holds, and is reported to the platform.

Changes follow one another: what one has found in force is what it replaces. Who is sanctioned is looked up in the table
(`SanctionTable`), by rooms and sessions themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

import structlog
import trio

from broker.core.clock import TrustedClock
from broker.core.moderation.sanctions import SanctionAction, SanctionChange, SanctionRefused, SanctionTable
from broker.core.tenants.names import plain_name
from broker.ledger import Committed, Item, Ledger, LedgerResult, SubmitResult
from broker.ledger.pending import PendingResult
from broker.ledger.records import remove_records
from broker.users.sanction_records import action_items, action_removal, read_sanctions, sanction_removal
from broker.webhooks.events import WebhookEvents
from protocol.activities.moderation import SanctionKind, SanctionVerb
from protocol.codes import ErrorCode, Role
from protocol.webhook_events import UserSanctionedData

__all__ = ["Sanctions", "verb_of"]

log = structlog.get_logger("roomcast.users")

MAX_WAITING = 500
"""Changes that wait for those before them."""
SWEEP_MS = 600_000
"""How often what has ended is removed."""


class Sanctions:
    """Changes of the sanctions of one broker. ``ledger`` None: they end with the process."""

    def __init__(self, table: SanctionTable, ledger: Ledger | None, clock: TrustedClock, events: WebhookEvents) -> None:
        self.table = table
        self._ledger = ledger
        self._clock = clock
        self._events = events
        self._lock = trio.Lock()
        self._sweep_at_ms = 0
        self.changed = 0
        """Changes so far, those undone included."""

    @property
    def kept(self) -> int:
        """Sanctions in force, those that have ended lately included."""
        return len(self.table)

    async def load(self) -> None:
        """Take over the sanctions of the last run. At the start, before connections are accepted."""
        if self._ledger is not None:
            self.table.restore(*await self._ledger.ask(read_sanctions))
            self._sweep()
            if len(self.table):
                log.info("sanctions restored", sanctions=len(self.table))

    async def change(
        self,
        kind: SanctionKind,
        room: str,
        user: str,
        by: str,
        by_role: Role,
        seconds: int | None,
        reason: str,
        *,
        is_shadow: bool = False,
    ) -> SanctionAction | None:
        """Set or lift a sanction (`SanctionChange`); None: there was nothing to lift. SanctionRefused."""
        wanted = SanctionChange(token_hex(8), kind, room, user, by, by_role, seconds, reason, is_shadow)
        return await self._do(lambda: self.table.decide(wanted, self._clock.now_ms()))

    async def undo(self, id: str, by: str, by_role: Role) -> SanctionAction:
        """Undo an action. SanctionRefused."""
        action = await self._do(lambda: self.table.decide_undo(id, by, by_role, self._clock.now_ms()))
        assert action is not None, "undoing is always an action"
        return action

    async def _do(self, decide: Callable[[], SanctionAction | None]) -> SanctionAction | None:
        if self._lock.statistics().tasks_waiting >= MAX_WAITING:
            raise SanctionRefused(ErrorCode.OVERLOADED, "too many sanctions wait")
        async with self._lock:
            self._sweep()
            action = decide()
            if action is None:
                return None
            await self._keep(action)
            forgotten = self.table.apply(action)
            if self._ledger is not None and forgotten:
                remove_records(self._ledger, [action_removal(each) for each in forgotten])
            self.changed += 1
            return action

    async def _keep(self, action: SanctionAction) -> None:
        """Make an action durable. SanctionRefused where the ledger cannot."""
        if self._ledger is None:
            return
        done = PendingResult[LedgerResult]()
        data = UserSanctionedData(
            action.id, verb_of(action), plain_name(action.room) or None, plain_name(action.user),
            0 if action.after is None else action.after.until_ms, action.reason, action.undone_by or action.by,
            action.after is not None and action.after.is_shadow, bool(action.undone_by),
        )  # fmt: skip
        at_ms = action.undone_at_ms or action.at_ms
        items: list[Item] = [*action_items(action), *self._events.of_user("user.sanctioned", action.user, data, at_ms)]
        if self._ledger.record(items, done.set) is SubmitResult.QUEUED and isinstance(await done.wait(), Committed):
            return
        raise SanctionRefused(ErrorCode.OVERLOADED, "the ledger cannot take it now")

    def _sweep(self) -> None:
        """Remove what has ended, where the clock is trusted."""
        now_ms = self._clock.now_ms()
        if now_ms < self._sweep_at_ms or self._clock.distrust():
            return
        self._sweep_at_ms = now_ms + SWEEP_MS
        ended, old = self.table.sweep(now_ms)
        if self._ledger is not None:
            removals = [sanction_removal(each) for each in ended] + [action_removal(each) for each in old]
            remove_records(self._ledger, removals)


def verb_of(action: SanctionAction) -> SanctionVerb:
    """Return what an action does."""
    if action.after is not None:
        return SanctionVerb.MUTE if action.kind is SanctionKind.MUTE else SanctionVerb.BAN
    return SanctionVerb.UNMUTE if action.kind is SanctionKind.MUTE else SanctionVerb.UNBAN
