"""Activities of rooms in the ledger: a fact of the chain for each batch, with the messages and reports of its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from broker.core.commerce.activity import Activity, Fact
from broker.core.commerce.room_activities import ActivityBatch, ActivityKey, ActivityKind, RoomActivities
from broker.core.tenants.names import qualify, tenant_of
from broker.ledger import ACTIVITY_FACTS, DirectEntry, Entry, OutboxEntry, Reader, StoredEntry, activity_facts
from protocol.activities import activity_payload
from protocol.codes import MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["DirectSink", "batch_items", "read_activities", "read_activity", "read_all_activities"]

log = structlog.get_logger("roomcast.activities")

ReportRows = Callable[[str, str, int, Any, int], tuple[OutboxEntry, ...]]
"""Returns the rows of a webhook event: its name, room, epoch, data (Any: of the event) and time."""


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


def read_activities(reader: Reader, kinds: Mapping[str, ActivityKind], room: str, epoch: int) -> RoomActivities[Any]:
    """Return the activities of one stream. Runs in the ledger's reading thread."""
    activities: RoomActivities[Any] = RoomActivities(kinds)
    _fold(activities, activity_facts(reader, room, epoch))
    return activities


def read_activity(
    reader: Reader, kinds: Mapping[str, ActivityKind], room: str, epoch: int, key: ActivityKey
) -> Activity[Any]:
    """Return one activity of a stream. Runs in the ledger's reading thread, and unpacks no facts of others."""
    activity = kinds[key[0]].make(key[1])
    whose = pack_body((*key, ()))[:-1]
    for entry in activity_facts(reader, room, epoch):
        if entry.body.startswith(whose):
            for name, data in unpack_body(entry.body)[2]:
                activity.apply(Fact(name, data))
    return activity


def read_all_activities(
    reader: Reader, kinds: Mapping[str, ActivityKind]
) -> dict[tuple[str, int], RoomActivities[Any]]:
    """Return the activities of every stream that has some and has not ended, by room and epoch. Runs in the ledger's
    reading thread."""
    found: dict[tuple[str, int], RoomActivities[Any]] = {}
    for entry in activity_facts(reader):
        of_room = found.get((entry.room, entry.epoch))
        if of_room is None:
            of_room = found[entry.room, entry.epoch] = RoomActivities(kinds)
        _fold(of_room, (entry,))
    return found


def _fold(activities: RoomActivities[Any], entries: Iterable[StoredEntry]) -> None:
    for entry in entries:
        try:
            kind, id, facts = unpack_body(entry.body)
            activities.fold((kind, id), [Fact(name, data) for name, data in facts], entry.at_ms)
        except (RemoteProtocolError, TypeError, ValueError):
            log.error("facts of an activity cannot be read", room=entry.room, entry=entry.seq)
