"""Writes the audit: one entry of the ledger's chain for each call by which staff or a backend changes something.

The entry is written right after the effect, and the answer waits for it, so whatever was answered is in the audit. (An
entry before the effect would say what may not have happened; one in the effect's own transaction would have to go
through every room.) A kill in between leaves an effect that no caller has learned of without an entry. Where the ledger
cannot take an entry now, the answer does not wait for long: up to `MAX_UNWRITTEN` entries wait in memory and are
written with the next one; above that the oldest is lost, counted and logged.

What viewers do for themselves is no action of staff: claims, votes and entries are facts of their activities already.
Neither are the operations of `NOT_AUDITED`, each for its reason.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import structlog
import trio

from broker.core.tenants.names import plain_name
from broker.core.users.named import users_in
from broker.ledger import Committed, Entry, Ledger, LedgerResult, SubmitResult
from broker.ledger.audits import AuditEntry, pack_audit
from broker.ledger.entries import AUDITED
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller
from broker.operations.parts import Parts
from protocol.frames import pack_body
from protocol.operations import STAFF, OperationRow

__all__ = ["NOT_AUDITED", "OK", "AuditLog", "summary_of"]

log = structlog.get_logger("roomcast.audit")

OK = "OK"
MAX_UNWRITTEN = 1000
WRITE_S = 5.0
"""How long an answer waits for its entry."""
MAX_SUMMARY_BYTES = 2048
MAX_LISTED = 20
MAX_REASON_CHARS = 256
NOT_AUDITED = {
    "app.call": "the platform decides what it does, and knows who called",
    "audiences.follow": "what a user did, which a backend reports: a fact of the room's audiences",
    "audiences.share": "what a user did, which a backend reports: a fact of the room's audiences",
    "desk.append": "a part of an answer, by the thousand: the message that it becomes is in the conversation",
    "directs.send": "a message of the platform, by the thousand: it is in the inbox",
    "keys.delete": "state of the platform, by the thousand: an event of the stream",
    "keys.set": "state of the platform, by the thousand: an event of the stream",
    "keys.set_many": "state of the platform, by the thousand: an event of the stream",
    "locks.acquire": "a lock of the platform's programs: it ends by itself",
    "locks.release": "a lock of the platform's programs: it ends by itself",
    "locks.renew": "a lock of the platform's programs: it ends by itself",
    "messages.publish": "a message of the platform, by the thousand: an event of the stream, or a danmaku",
    "messages.publish_many": "messages of the platform, by the thousand: events of the stream, or danmaku",
}
"""Operations that change something and leave no entry, whoever calls them, and where they are found."""
_NAMES = frozenset({
    "action", "batch", "category", "channel", "endpoint", "id", "job", "list", "operation", "order_id", "other_room",
    "pattern", "room", "rooms", "scopes", "sku", "tenant", "type",
})  # fmt: skip
"""Texts that name something; of all others only the length is written."""
_OWN_COLUMNS = frozenset({"as_user", "reason", "user"})


def _phase(parts: Parts, request: Any) -> Any:
    room = parts.hub.find(request.room)
    return {"phase": "ended" if room is None else room.state.phase.name.lower()}


def _rules(parts: Parts, request: Any) -> Any:
    room = parts.hub.find(request.room)
    return None if room is None else dict(room.state.own_rules)


def _modes(parts: Parts, request: Any) -> Any:
    room = parts.hub.find(request.room)
    return None if room is None else summary_of(room.state.modes.modes)


_STATES: Mapping[str, Callable[[Parts, Any], Any]] = {
    "rooms.set_phase": _phase,
    "rooms.close": _phase,
    "rooms.set_rules": _rules,
    "moderation.set_modes": _modes,
}
"""What is written before and after an operation. Any: its request."""


class AuditLog:
    """The audit of one broker. ``counts`` by outcome, and ``lost`` entries, only grow."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._unwritten: deque[Entry] = deque()
        self.counts: Counter[str] = Counter()
        self.lost = 0

    @property
    def unwritten(self) -> int:
        """Entries that wait for the ledger."""
        return len(self._unwritten)

    def covers(self, caller: Caller, row: OperationRow, request: Any) -> bool:
        """Return whether a call is an action of staff, or of the platform.

        ``request``: of the row (Any). Of operations that viewers call too, those are that a backend may call (they have
        a scope), by staff of the room.
        """
        if not row.changes or self._parts.ledger is None or row.name in NOT_AUDITED:
            return False
        if caller.is_backend or (bool(row.roles) and row.roles <= STAFF):
            return True
        return row.scope is not None and row.room and caller.role_in(request.room) in STAFF

    def state(self, row: OperationRow, request: Any) -> Any:
        """Return what an operation is about to change, where that is known (Any: of each operation)."""
        read = _STATES.get(row.name)
        return None if read is None else read(self._parts, request)

    async def write(
        self, caller: Caller, row: OperationRow, request: Any, outcome: str, before: Any, result: Any = None
    ) -> None:
        """Write the entry of a call that has ended; return when it is durable, or the ledger does not take it."""
        ledger = self._parts.ledger
        assert ledger is not None
        self.counts[OK if outcome == OK else "refused"] += 1
        after: Any = None
        users: tuple[str, ...] = ()
        if outcome == OK:
            after = self.state(row, request) if row.name in _STATES else summary_of(result)
            users = _users_in_result(result)
            if len(users) > 1:
                after = {**after, "users": users[:MAX_LISTED]}
        made = AuditEntry(
            caller.tenant,
            "user" if not caller.is_backend else "key" if caller.address else "program",
            caller.id,
            plain_name(getattr(request, "as_user", None) or ""),
            row.name,
            plain_name(getattr(request, "room", None) or ""),
            _subject(request) or (users[0] if len(users) == 1 else ""),
            str(getattr(request, "reason", None) or "")[:MAX_REASON_CHARS],
            outcome,
            summary_of(request),
            before,
            after,
        )
        self._unwritten.append(Entry("", 0, None, AUDITED, self._parts.unix_ms(), pack_audit(made)))
        with trio.move_on_after(WRITE_S):
            await self._flush(ledger)

    async def _flush(self, ledger: Ledger) -> None:
        entries = tuple(self._unwritten)[-MAX_UNWRITTEN:]
        self._unwritten.clear()
        pending = PendingResult[LedgerResult]()

        def done(result: LedgerResult) -> None:
            if not isinstance(result, Committed):
                self._keep(entries)
            pending.set(result)

        if ledger.record(entries, done) is not SubmitResult.QUEUED:
            self._keep(entries)
            return
        await pending.wait()

    def _keep(self, entries: tuple[Entry, ...]) -> None:
        """Let entries wait that the ledger has not taken."""
        self._unwritten.extendleft(reversed(entries))
        lost = len(self._unwritten) - MAX_UNWRITTEN
        for _ in range(lost):
            self._unwritten.popleft()
        if lost > 0:
            self.lost += lost
            log.error("entries of the audit are lost: the ledger does not take them", lost=lost)


def _subject(request: Any) -> str:
    """Return the user whom a request is about, "" = none, or several."""
    user = getattr(request, "user", None)
    if isinstance(user, str):
        return plain_name(user)
    named = users_in(request)
    return plain_name(named.pop()) if len(named) == 1 else ""


def _users_in_result(result: Any) -> tuple[str, ...]:
    """Return the users about whose messages a result is."""
    items = getattr(result, "items", None)
    users = {getattr(each, "user", "") for each in items} if isinstance(items, tuple) else set()
    return tuple(sorted(map(plain_name, users - {""})))


def summary_of(record: Any) -> Any:
    """Return what an entry says of a request or result (Any: a record): numbers, choices and names, of texts, lists and
    payloads their size. None for what is no record; the names of the fields alone where it is above 2 KiB."""
    if not hasattr(record, "_fields"):
        return None
    found = {
        name: said
        for name, value in zip(record._fields, record, strict=True)
        if name not in _OWN_COLUMNS
        and value is not None
        and value != record._field_defaults.get(name)
        and (said := _said(name, value)) is not None
    }
    if len(pack_body((found,))) > MAX_SUMMARY_BYTES:
        return {"fields": tuple(found)}
    return found


def _said(name: str, value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return plain_name(value)[:64] if name in _NAMES else f"{len(value)} characters"
    if hasattr(value, "_fields"):
        return summary_of(value)
    if isinstance(value, (list, tuple)):
        if len(value) <= MAX_LISTED and all(isinstance(each, int) for each in value):
            return tuple(map(int, value))
        if name in _NAMES and len(value) <= MAX_LISTED and all(isinstance(each, str) for each in value):
            return tuple(plain_name(each)[:64] for each in value)
        return f"{len(value)} items"
    if isinstance(value, Mapping):
        if name == "rules":
            return {key: each for key, each in value.items() if each is None or isinstance(each, (int, float))}
        return f"{len(value)} fields"
    return None
