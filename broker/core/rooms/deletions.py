"""Deleted messages: which events a deletion covers, and what stands in their place.

A deletion is an event of its own (MESSAGES_DELETED). The ledger keeps the bodies of deleted events until retention, for
its chain, and the broker returns them to no caller: in each answer an event that says only that it is deleted
stands at the same offset. Money and the state of the room are not deletable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from broker.core.rooms.stream import StoredEvent
from protocol.codes import MessageType
from protocol.messages import Event
from protocol.payloads import DeletedPayload, HighlightPayload, PinsPayload, payload_record

__all__ = ["UNDELETABLE", "Deletions", "as_shown", "deletion_of", "is_covered", "redacted", "without_deleted"]

Covers = Callable[[int, str, int], bool]
"""Whether the message with an offset (0 = none), user id and time is deleted."""
UNDELETABLE = frozenset(
    {
        MessageType.GIFT,
        MessageType.ROOM_PHASE,
        MessageType.PINS_CHANGED,
        MessageType.MESSAGES_DELETED,
        MessageType.KEYS_CHANGED,
    }
)
"""Types that a deletion does not cover."""


def deletion_of(event: Event) -> DeletedPayload | None:
    """Return what an event deletes; None where it deletes nothing."""
    if event.type != MessageType.MESSAGES_DELETED:
        return None
    payload = payload_record(event.type, event.payload)
    return payload if isinstance(payload, DeletedPayload) else None


def redacted(stored: StoredEvent) -> StoredEvent:
    """Return what stands in place of a deleted event: its offset, lane and time, and nothing of its content; of a
    highlight all but name and text."""
    if stored.event.type == MessageType.HIGHLIGHT:
        highlight = payload_record(stored.event.type, stored.event.payload)
        if isinstance(highlight, HighlightPayload):
            hidden = highlight._replace(name="", text="")
            return stored._replace(event=stored.event._replace(name="", payload=hidden))
    payload = DeletedPayload((stored.offset,))
    return stored._replace(event=Event(int(MessageType.MESSAGES_DELETED), stored.event.at_ms, "", "", payload))


def is_covered(stored: StoredEvent, covers: Covers) -> bool:
    """Return whether an event is deleted."""
    event = stored.event
    return event.type not in UNDELETABLE and covers(stored.offset, event.user_id, event.at_ms)


def as_shown(stored: StoredEvent, covers: Covers) -> StoredEvent:
    """Return an event as it is shown after deletions: redacted where it is deleted, without pins that are."""
    if is_covered(stored, covers):
        return redacted(stored)
    if stored.event.type == MessageType.PINS_CHANGED:
        payload = payload_record(stored.event.type, stored.event.payload)
        if isinstance(payload, PinsPayload):
            left = tuple(pin for pin in payload.pinned if not covers(pin.offset, pin.user_id, pin.at_ms))
            if len(left) < len(payload.pinned):
                return stored._replace(event=stored.event._replace(payload=PinsPayload(left)))
    return stored


class Deletions:
    """Deletions of one stream that come after the events to which they are applied."""

    __slots__ = ("_after_ms", "_after_ms_of", "_offsets")

    def __init__(self, payloads: Iterable[DeletedPayload] = ()) -> None:
        self._offsets: set[int] = set()
        self._after_ms: float = float("inf")
        self._after_ms_of: dict[str, int] = {}
        for payload in payloads:
            self.add(payload)

    def add(self, payload: DeletedPayload) -> None:
        """Add a deletion."""
        if payload.offsets:
            self._offsets.update(payload.offsets)
        elif payload.user_id:
            before = self._after_ms_of.get(payload.user_id, payload.after_ms)
            self._after_ms_of[payload.user_id] = min(before, payload.after_ms)
        else:
            self._after_ms = min(self._after_ms, payload.after_ms)

    def covers(self, offset: int, user_id: str, at_ms: int) -> bool:
        """Return whether a message before all of these deletions is deleted, as `DeletedPayload.covers`."""
        return offset in self._offsets or at_ms > self._after_ms or at_ms > self._after_ms_of.get(user_id, float("inf"))


def without_deleted(events: Sequence[StoredEvent], later: Iterable[Any] = ()) -> list[StoredEvent]:
    """Return events in order, those that are deleted redacted.

    ``later``: payloads of deletions after the last one, as they were stored (Any). Linear in events and deletions.
    """
    deletions = Deletions()
    for payload in later:
        event = Event(MessageType.MESSAGES_DELETED, 0, "", "", payload)
        if (deletion := deletion_of(event)) is not None:
            deletions.add(deletion)
    found: list[StoredEvent] = []
    for stored in reversed(events):
        deletion = deletion_of(stored.event)
        if deletion is not None:
            deletions.add(deletion)
        found.append(as_shown(stored, deletions.covers))
    return found[::-1]
