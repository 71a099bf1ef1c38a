"""Activities of rooms in the ledger: a fact of the chain for each batch, with the messages and reports of its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from broker.core.commerce.activity import Activity, ErasedUser, Fact
from broker.core.commerce.room_activities import ActivityBatch, ActivityKey, ActivityKind, RoomActivities
from broker.core.tenants.names import qualify, tenant_of
from broker.ledger import ACTIVITY_FACTS, DirectEntry, Entry, OutboxEntry, Reader, StoredEntry, activity_facts
from protocol.activities import activity_payload
from protocol.codes import MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = [
    "DirectSink",
    "Erasing",
    "batch_items",
    "erased_facts",
    "read_activities",
    "read_activity",
    "read_all_activities",
]

log = structlog.get_logger("roomcast.activities")

ReportRows = Callable[[str, str, int, Any, int], tuple[OutboxEntry, ...]]
"""Returns the rows of a webhook event: its name, room, epoch, data (Any: of the event) and time."""


Erasing = Sequence[tuple[str, ErasedUser]]
"""Users, with their tenants, whose erasure is under way: some facts of the ledger still name them."""


class DirectSink(Protocol):
    """The inboxes of users, as far as a transaction of a room needs them."""

    def entry(self, user: str, kind: int, payload: Any) -> DirectEntry:
        """Return the item that puts a message into an inbox."""
        ...

    def written(self, entries: Sequence[DirectEntry], direct_ids: Sequence[int]) -> None:
        """Deliver messages that are durable, with the numbers that the ledger gave them."""
        ...


def batch_items(
    room: str, epoch: int, made: ActivityBatch, at_ms: int, sink: DirectSink | None, reports: ReportRows | None
) -> tuple[Entry, list[DirectEntry], list[OutboxEntry]]:
    """Return what the transaction of a batch holds: its facts, messages to users, and reports."""
    (kind, id), batch = made
    facts = Entry(room, epoch, None, ACTIVITY_FACTS, at_ms, pack_body((kind, id, batch.facts)))
    tenant = tenant_of(room)
    directs: list[DirectEntry] = []
    if sink is not None:
        for user, name, data in batch.messages:
            payload = activity_payload(name, id, data)
            directs.append(sink.entry(qualify(tenant, user), MessageType.ACTIVITY, payload))
    rows: list[OutboxEntry] = []
    if reports is not None:
        for name, data in batch.reports:
            rows += reports(name, room, epoch, data, at_ms)
    return facts, directs, rows


def read_activities(
    reader: Reader, kinds: Mapping[str, ActivityKind], room: str, epoch: int, erasing: Erasing = ()
) -> RoomActivities[Any]:
    """Return the activities of one stream, without the users of ``erasing``. Runs in the ledger's reading thread."""
    activities: RoomActivities[Any] = RoomActivities(kinds)
    _fold(activities, activity_facts(reader, room, epoch), kinds, erasing)
    return activities


def read_activity(
    reader: Reader,
    kinds: Mapping[str, ActivityKind],
    room: str,
    epoch: int,
    key: ActivityKey,
    erasing: Erasing = (),
) -> Activity[Any]:
    """Return one activity of a stream, without the users of ``erasing``. Runs in the ledger's reading thread, and
    unpacks no facts of others."""
    activity = kinds[key[0]].make(key[1])
    whose = pack_body((*key, ()))[:-1]
    for entry in activity_facts(reader, room, epoch):
        if entry.body.startswith(whose):
            for fact in _facts_of(kinds, entry, key, unpack_body(entry.body)[2], erasing):
                activity.apply(fact)
    return activity


def read_all_activities(
    reader: Reader, kinds: Mapping[str, ActivityKind], erasing: Erasing = ()
) -> dict[tuple[str, int], RoomActivities[Any]]:
    """Return the activities of every stream that has some and has not ended, by room and epoch, without the users of
    ``erasing``. Runs in the ledger's reading thread."""
    found: dict[tuple[str, int], RoomActivities[Any]] = {}
    for entry in activity_facts(reader):
        of_room = found.get((entry.room, entry.epoch))
        if of_room is None:
            of_room = found[entry.room, entry.epoch] = RoomActivities(kinds)
        _fold(of_room, (entry,), kinds, erasing)
    return found


def erased_facts(entry: StoredEntry, kinds: Mapping[str, ActivityKind], erased: ErasedUser) -> bytes | None:
    """Return the body of facts of an activity without a user; None: they are of a kind that is not known."""
    kind, id, facts = unpack_body(entry.body)
    if kind not in kinds:
        return None
    activity = kinds[kind].make(id)
    return pack_body((kind, id, tuple(activity.without(Fact(name, data), erased) for name, data in facts)))


def _facts_of(
    kinds: Mapping[str, ActivityKind], entry: StoredEntry, key: ActivityKey, facts: Iterable[Any], erasing: Erasing
) -> list[Fact]:
    """Return the facts of an entry as they are after the erasures that are under way."""
    found = [Fact(name, data) for name, data in facts]
    for tenant, erased in erasing:
        if key[0] in kinds and tenant == tenant_of(entry.room) and erased.user.encode() in entry.body:
            activity = kinds[key[0]].make(key[1])
            found = [activity.without(fact, erased) for fact in found]
    return found


def _fold(
    activities: RoomActivities[Any],
    entries: Iterable[StoredEntry],
    kinds: Mapping[str, ActivityKind],
    erasing: Erasing,
) -> None:
    for entry in entries:
        try:
            kind, id, facts = unpack_body(entry.body)
            activities.fold((kind, id), _facts_of(kinds, entry, (kind, id), facts, erasing), entry.at_ms)
        except (RemoteProtocolError, TypeError, ValueError):
            log.error("facts of an activity cannot be read", room=entry.room, entry=entry.seq)
