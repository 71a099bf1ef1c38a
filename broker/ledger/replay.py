"""Fold of the ledger from its first entry: every room as its events have made it.

A pure fold over entries, in order of writing. It trusts the entries it is given (`Reader` checks them) and nothing
else; so replaying up to a moment shows the rooms as they were then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from broker.core.tenants.names import shown_name, split_name
from broker.ledger.entries import FACT_KIND_MIN, StoredEntry
from broker.ledger.orders import order_of
from protocol.activities.audiences import Audience
from protocol.codes import MessageType, RoomPhase
from protocol.errors import RemoteProtocolError
from protocol.frames import unpack_body
from protocol.messages import Event

__all__ = ["RoomReplay", "addressed_event_of", "event_of", "replay"]


def event_of(entry: StoredEntry) -> Event | None:
    """The event that an entry of a stream holds; None for facts, and for what this version cannot read."""
    found = addressed_event_of(entry)
    return None if found is None else found[0]


def addressed_event_of(entry: StoredEntry) -> tuple[Event, Audience | None] | None:
    """Return the event that an entry of a stream holds, and the part of the room that it is for, None = all; None for
    facts, and for what this version cannot read."""
    if entry.lane is None or entry.kind >= FACT_KIND_MIN:
        return None
    try:
        *fields, audience = (*unpack_body(entry.body), None)[: len(Event._fields) + 1]
        return Event(*fields), None if audience is None else Audience(*audience)
    except (RemoteProtocolError, TypeError):
        return None


@dataclass(slots=True)
class RoomReplay:
    """One epoch of one room, as far as its entries show. ``room``: its qualified name."""

    room: str
    epoch: int
    first_offset: int = 0
    last_offset: int = 0
    first_ms: int = 0
    last_ms: int = 0
    events: int = 0
    facts: int = 0
    holes: int = 0
    """Offsets that are missing between two events; more than 0 only where retention removed the beginning."""
    unreadable: int = 0
    phase: RoomPhase = RoomPhase.LIVE
    announcements: int = 0
    gifts: int = 0
    """Gift events that add gifts, not the bare ends of combos."""
    gift_units: int = 0
    gift_cents: int = 0
    orders: int = 0
    """Orders behind the gifts; 0 where they were written before orders were facts."""
    order_units: int = 0
    order_cents: int = 0
    highlights: int = 0
    highlight_cents: int = 0
    by_type: Counter[int] = field(default_factory=Counter)
    cents_by_user: Counter[str] = field(default_factory=Counter)

    def take(self, entry: StoredEntry) -> None:
        """Fold one entry in; ValueError if it comes twice or out of order."""
        if entry.lane is None:
            self.facts += 1
            order = order_of(entry)
            if order is not None:
                self.orders += 1
                self.order_units += order.count
                self.order_cents += order.count * order.price_cents
            return
        if self.events and entry.offset <= self.last_offset:
            raise ValueError(f"room {shown_name(self.room)}: offset {entry.offset} after {self.last_offset}")
        if not self.events:
            self.first_offset, self.first_ms = entry.offset, entry.at_ms
        else:
            self.holes += entry.offset - self.last_offset - 1
        self.events += 1
        self.last_offset, self.last_ms = entry.offset, entry.at_ms
        self.by_type[entry.kind] += 1
        event = event_of(entry)
        if event is None:
            self.unreadable += 1
            return
        try:
            self._show(event)
        except (TypeError, ValueError, IndexError):
            self.unreadable += 1

    def _show(self, event: Event) -> None:
        # Any: payloads are what their types say, and were checked when they came in.
        payload: Any = event.payload
        match event.type:
            case MessageType.ROOM_PHASE:
                self.phase = RoomPhase(payload[0])
            case MessageType.ANNOUNCEMENT:
                self.announcements += 1
            case MessageType.GIFT:
                _, user_id, _, _, count, price_cents, *_ = payload
                self.gifts += count > 0
                self.gift_units += count
                self.gift_cents += count * price_cents
                self.cents_by_user[user_id] += count * price_cents
            case MessageType.HIGHLIGHT:
                _, user_id, _, _, cents, *_ = payload
                self.highlights += 1
                self.highlight_cents += cents
                self.cents_by_user[user_id] += cents

    def as_json(self, top: int = 5) -> dict[str, Any]:
        """Everything for people and programs, the ``top`` givers included."""
        tenant, name = split_name(self.room)
        return {
            **({"tenant": tenant} if tenant else {}),
            "room": name,
            "epoch": self.epoch,
            "offsets": [self.first_offset, self.last_offset],
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "events": self.events,
            "facts": self.facts,
            "holes": self.holes,
            "unreadable": self.unreadable,
            "phase": self.phase.name.lower(),
            "announcements": self.announcements,
            "gifts": self.gifts,
            "gift_units": self.gift_units,
            "gift_cents": self.gift_cents,
            "highlights": self.highlights,
            "highlight_cents": self.highlight_cents,
            "orders": self.orders,
            "order_units": self.order_units,
            "order_cents": self.order_cents,
            "top_givers": [list(giver) for giver in self.cents_by_user.most_common(top)],
            "by_type": {str(kind): count for kind, count in sorted(self.by_type.items())},
        }


def replay(entries: Iterable[StoredEntry]) -> dict[tuple[str, int], RoomReplay]:
    """Fold entries, in order of writing, into rooms by (room, epoch). O(entries); memory O(rooms and givers)."""
    rooms: dict[tuple[str, int], RoomReplay] = {}
    for entry in entries:
        key = entry.room, entry.epoch
        found = rooms.get(key)
        if found is None:
            found = rooms[key] = RoomReplay(*key)
        found.take(entry)
    return rooms
