"""Changes of a room's keys as events of its stream: each command is one event of lane 1, as durable as the others."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from math import ceil
from typing import Any, Generic, NamedTuple, TypeVar

from broker.core.limits.rate_limit import Gcra, Rate
from broker.core.rooms.effects import Effect, PendingReply, Record
from broker.core.rooms.idempotency import OperationKey
from broker.core.rooms.keys import KeyDelete, KeyRefused, RoomKeys
from broker.core.rooms.phases import RoomPhases
from broker.core.rooms.stream import BUSY_RETRY_MS, Stream
from protocol.codes import ErrorCode, Lane, MessageType, Outcome, RoomPhase
from protocol.frames import pack_body
from protocol.messages import Event
from protocol.operations.keys import KeyItem
from protocol.payloads import KeyChange, KeysPayload

__all__ = ["KEY_CHANGES", "KeyChanges", "KeyDecision", "key_operation"]

T = TypeVar("T")

KEY_CHANGES = Rate(20, 100)
"""Commands of one room: each is an event for every member."""


class KeyDecision(NamedTuple):
    """A command that was taken in.

    ``changes``: what it changes, None where its idempotency key is known. ``effects``: they answer the ticket, unless
    ``changes`` is empty.
    """

    changes: tuple[KeyChange, ...] | None
    # Any: the reply addresses are the caller's.
    effects: Sequence[Effect[Any]]


def key_operation(caller: str, key: str, items: Sequence[KeyItem | KeyDelete]) -> OperationKey | None:
    """Return the idempotency key of a command; None where its caller gave none."""
    if not key:
        return None
    content = tuple((type(item).__name__, *item) for item in items)
    return OperationKey(("keys", caller, key), sha256(pack_body((content,))).digest()[:8])


class KeyChanges(Generic[T]):
    """Puts the commands on the keys of one room, and what falls due, on their way into its stream."""

    __slots__ = ("_durable", "_limit", "_phases", "_stream", "keys")

    def __init__(self, keys: RoomKeys, stream: Stream[T], phases: RoomPhases, durable: bool) -> None:
        self.keys = keys
        self._stream = stream
        self._phases = phases
        self._durable = durable
        self._limit = Gcra(KEY_CHANGES, 2)

    def command(
        self,
        ticket: T,
        user_id: str,
        name: str,
        items: Sequence[KeyItem | KeyDelete],
        key: OperationKey | None,
        now: float,
        now_ms: int,
        at_ms: int,
    ) -> KeyDecision | KeyRefused:
        """Do all of ``items``, or none. ``now_ms``: trusted Unix milliseconds; ``at_ms``: those of the event."""
        if self._phases.comes_back:
            return KeyRefused(ErrorCode.OVERLOADED, "room", "is closed for a moment", retry_after_ms=BUSY_RETRY_MS)
        if self._phases.wanted is RoomPhase.ENDED:
            return KeyRefused(ErrorCode.ROOM_ENDED, "room", "has ended")
        known = self._stream.known(key, ticket, now)
        if known is not None:
            return KeyDecision(None, known)
        wait_s = self._limit.try_acquire("", now)
        if wait_s:
            rule = "the keys of this room change too often"
            return KeyRefused(ErrorCode.RATE_LIMITED, "room", rule, 0, max(1, ceil(wait_s * 1000)))
        changes = self.keys.decide(items, now_ms)
        if isinstance(changes, KeyRefused):
            return changes
        if not changes:
            return KeyDecision((), ())
        self._stream.begin(key)
        asked = (PendingReply(ticket, Outcome.ACCEPTED, key),)
        return KeyDecision(changes, self._record(changes, user_id, name, asked, now, at_ms))

    def due(self, now: float, now_ms: int | None, at_ms: int) -> Sequence[Effect[T]]:
        """Delete what is due. ``now_ms``: trusted Unix milliseconds, None while they are not trusted."""
        if self._phases.wanted is RoomPhase.ENDED:
            self.keys.postpone(now)
            return ()
        changes = self.keys.due(now, now_ms)
        return self._record(changes, "", "", (), now, at_ms) if changes else ()

    def delete_owned(self, user: str, now: float, now_ms: int, at_ms: int) -> tuple[Sequence[Effect[T]], bool]:
        """Delete the keys of a user; return also whether it owns none now."""
        if self._phases.wanted is RoomPhase.ENDED:
            return (), True
        changes, owns_none = self.keys.delete_owned(user, now_ms)
        return self._record(changes, "", "", (), now, at_ms) if changes else (), owns_none

    def _record(
        self,
        changes: tuple[KeyChange, ...],
        user_id: str,
        name: str,
        asked: tuple[PendingReply[T], ...],
        now: float,
        at_ms: int,
    ) -> Sequence[Effect[T]]:
        event = Event(MessageType.KEYS_CHANGED, at_ms, user_id, name, KeysPayload(changes))
        self._stream.admit(Lane.COMMERCE)
        if not self._durable:
            self.keys.apply(changes, now)
        return self._stream.record(event, Lane.COMMERCE, asked, now)

    def committed(self, record: Record[T], now: float) -> None:
        """The ledger has made a change durable."""
        self.keys.apply(record.event.payload.changes, now)

    def given_up(self, record: Record[T], now: float) -> None:
        """The ledger has not written a change: it could not, or it knew its key."""
        self.keys.release(record.event.payload.changes, now)
