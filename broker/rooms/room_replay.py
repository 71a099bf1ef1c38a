"""State of a room at any moment of its past, folded from its entries in the ledger by the room's own parts.

Exact are the phase, what is pinned and announced, keys, activities, paid messages and the ranking of gifts: each
follows from entries, as do modes, and rules of the room by the audit. Danmaku are in no ledger: of them there is the
account. Counters are those of the last sample before the moment (`broker.core.rooms.samples`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from broker.core.commerce.activity import Fact
from broker.core.commerce.highlights import HeldHighlight, Highlights
from broker.core.commerce.room_activities import ActivityKind, RoomActivities
from broker.core.commerce.room_rankings import GIFTS, RoomRankings
from broker.core.rooms.deletions import deletion_of
from broker.core.rooms.history import History
from broker.core.rooms.kept import KeptMessages
from broker.core.rooms.keys import RoomKeys
from broker.core.rooms.modes import modes_of
from broker.core.rooms.samples import RoomSample, read_sample
from broker.core.rooms.stream import StoredEvent, kept_bytes
from broker.core.tenants.names import plain_name, split_name
from broker.ledger import ACTIVITY_FACTS, Reader, StoredEntry
from broker.ledger.audits import AuditEntry, AuditFilter, audit_page
from broker.ledger.entries import ROOM_SAMPLED
from broker.ledger.orders import REFUND_KIND
from broker.ledger.replay import addressed_event_of
from broker.ledger.streams import FoundStream, all_entries, find_stream, last_before
from protocol.activities.moderation import RoomModes
from protocol.codes import Lane, MessageType, RoomPhase
from protocol.errors import RemoteProtocolError
from protocol.frames import unpack_body
from protocol.json_values import as_json
from protocol.payloads import GiftPayload, HighlightPayload, KeysPayload, payload_record

__all__ = ["TOP_GIVERS", "ReplayedRoom", "replay_room"]

TOP_GIVERS = 10
AUDIT_PAGE, AUDIT_BYTES = 1000, 2**20
"""Entries of the audit that are taken at once."""


class ReplayedRoom:
    """A room as its entries have made it. ``room``: its qualified name; ``kinds``: of activities, by name."""

    def __init__(self, room: str, epoch: int, kinds: Mapping[str, ActivityKind]) -> None:
        self.room = room
        self.epoch = epoch
        self.phase = RoomPhase.LIVE
        self.at_ms = 0
        """Time of the last entry."""
        self.number = 0
        """Of the last entry, in the ledger's chain."""
        self.unreadable = 0
        """Entries that this version cannot read."""
        self.history: History[StoredEvent] = History(epoch)
        self.kept = KeptMessages(self.history, 0)
        self.keys = RoomKeys(lambda user: False)
        self.activities: RoomActivities[Any] = RoomActivities(kinds)
        self.highlights = Highlights()
        self.rankings = RoomRankings()
        self.modes = RoomModes()
        self.rules: dict[str, Any] = {}
        """Rules of its own, as the audit has them."""
        self.sample: RoomSample | None = None
        self.sampled_at_ms = 0

    def take(self, entry: StoredEntry) -> None:
        """Fold one entry in; they come in order."""
        self.at_ms = max(self.at_ms, entry.at_ms)
        self.number = entry.seq
        try:
            self._take(entry)
        except (RemoteProtocolError, TypeError, ValueError, LookupError, AttributeError):
            self.unreadable += 1

    def audited(self, entry: AuditEntry) -> None:
        """Fold in an entry of the audit that names the room: its rules are in no event."""
        if entry.outcome == "OK" and entry.operation == "rooms.set_rules" and isinstance(entry.after, Mapping):
            self.rules = dict(entry.after)
        elif entry.outcome == "OK" and entry.operation == "rooms.open" and isinstance(entry.request, Mapping):
            changes = entry.request.get("rules")
            if isinstance(changes, Mapping):
                changed = {**self.rules, **changes}
                self.rules = {name: value for name, value in changed.items() if value is not None}

    def _take(self, entry: StoredEntry) -> None:
        if entry.lane is not None:
            found = addressed_event_of(entry)
            if found is None:
                raise ValueError("an event of a later version")
            self._follow(StoredEvent(entry.offset, Lane(entry.lane), *found), entry.at_ms / 1000)
        elif entry.kind == ACTIVITY_FACTS:
            kind, id, facts = unpack_body(entry.body)
            self.activities.fold((kind, id), [Fact(name, data) for name, data in facts], entry.at_ms)
        elif entry.kind == ROOM_SAMPLED:
            self.sample, self.sampled_at_ms = read_sample(entry.body), entry.at_ms
        elif entry.kind == REFUND_KIND:
            _, user, cents, *_ = unpack_body(entry.body)
            self.rankings.add(GIFTS, plain_name(user), -cents, self.history.last_offset)

    def _follow(self, stored: StoredEvent, now: float) -> None:
        event, history = stored.event, self.history
        history.last_offset = stored.offset - 1  # retention may have removed the beginning of the stream
        history.append(stored, kept_bytes(event), now)
        self.kept.apply(stored, now)
        payload = payload_record(event.type, event.payload)
        self.modes = modes_of(event) or self.modes
        if event.type == MessageType.ROOM_PHASE:
            self.phase = RoomPhase(event.payload[0])
        elif event.type == MessageType.MESSAGES_DELETED:
            deletion = deletion_of(event)
            if deletion is not None:
                self.highlights.hide(deletion.covers)
        elif isinstance(payload, KeysPayload):
            self.keys.apply(payload.changes, now)
        elif isinstance(payload, GiftPayload):
            self.rankings.gave(payload, stored.offset)
        elif isinstance(payload, HighlightPayload):
            self.rankings.gave(payload, stored.offset)
            self.highlights.apply(HeldHighlight.of(payload, stored.offset, event.at_ms), payload.displaced)

    def as_json(self, at_ms: int) -> dict[str, Any]:
        """Return the state at ``at_ms`` as plain JSON."""
        tenant, name = split_name(self.room)
        _, _, announcement, pinned = self.kept.snapshot()
        gifts = self.rankings.page(GIFTS, TOP_GIVERS, "", 0, 0.0, self.history.last_offset)[0]
        sample = self.sample
        has_ended = self.phase is RoomPhase.ENDED
        return {
            "tenant": tenant,
            "room": name,
            "epoch": self.epoch,
            "at_ms": at_ms,
            "phase": self.phase.name.lower(),
            "title": "" if sample is None else sample.title,
            "last_offset": self.history.last_offset,
            "announcement": None if announcement is None else as_json(announcement),
            "pinned": as_json(pinned),
            "modes": as_json(self.modes),
            "rules": dict(sorted(self.rules.items())),
            "keys": [] if has_ended else as_json(self.keys.views()),
            "activities": self._activities(),
            "highlights": [as_json(view.data) for view in self.highlights.views(at_ms)],
            "gifts": {"cents": gifts.total, "givers": gifts.ranked, "top": as_json(gifts.top)},
            "counters": None if sample is None else self._counters(sample),
            "accounts": None if sample is None else _accounts(sample),
            "unreadable_entries": self.unreadable,
        }

    def _activities(self) -> list[dict[str, Any]]:
        found = []
        for kind, id in self.activities.keys():
            activity = self.activities.find(kind, id)
            view = as_json(activity.view(True))
            found.append({"kind": kind, "id": id, "amounts": dict(activity.amounts), "view": view})
        return found

    def _counters(self, sample: RoomSample) -> dict[str, Any]:
        fields = ("stage", "tick_ms", "online", "users", "uniques", "peak", "likes")
        return {"at_ms": self.sampled_at_ms} | {name: getattr(sample, name) for name in fields} | {
            "counts": dict(sample.counts)
        }  # fmt: skip


def _accounts(sample: RoomSample) -> dict[str, Any]:
    return {lane.name.lower(): sample.accounts[lane]._asdict() for lane in Lane}


def _follow_audit(reader: Reader, found: ReplayedRoom, stream: FoundStream, at_ms: int | None) -> None:
    """Fold in the audit of a room: of its last stream up to ``at_ms`` (None = all), of an older one up to its end."""
    newest = find_stream(reader, stream.room)
    is_newest = newest is not None and newest.epoch == stream.epoch
    tenant, name = split_name(stream.room)
    after: int | None = stream.after
    while after is not None:
        page, after = audit_page(reader, AuditFilter(tenant, room=name), after, AUDIT_PAGE, AUDIT_BYTES)
        for number, audited_ms, entry in page:
            if (number > found.number and not is_newest) or (at_ms is not None and audited_ms > at_ms):
                return
            found.audited(entry)


def replay_room(
    reader: Reader,
    room: str,
    epoch: int | None,
    kinds: Mapping[str, ActivityKind],
    since_ms: int | None = None,
    at_ms: int | None = None,
) -> dict[str, Any] | None:
    """Return the state of a room (qualified name) as JSON, in a stream or the last one; None where the ledger has none.

    ``since_ms``: milliseconds since the stream was opened; ``at_ms``: Unix milliseconds; neither: at its end. Folded
    are all entries up to the last one of that time. LedgerDamaged, sqlite3.Error.
    """
    with reader.snapshot():
        stream = find_stream(reader, room, epoch)
        if stream is None:
            return None
        if since_ms is not None:
            at_ms = stream.opened_at_ms + since_ms
        if at_ms is not None:
            stream = stream._replace(last=last_before(reader, stream, at_ms))
        found = ReplayedRoom(room, stream.epoch, kinds)
        entries: Iterable[StoredEntry] = all_entries(reader, stream)
        for entry in entries:
            found.take(entry)
        _follow_audit(reader, found, stream, at_ms)
    state = found.as_json(found.at_ms if at_ms is None else at_ms)
    return {"opened_at_ms": stream.opened_at_ms, **state}
