"""Broadcasts in the ledger: a record of each, and of one that is not done the names of its rooms in further records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from broker.core.tenants.names import qualify
from broker.ledger import Item, Reader, RecordPut, RecordRemoved
from broker.ledger.records import read_records
from protocol.frames import pack_body
from protocol.operations.messages import BroadcastMessage

__all__ = ["KIND", "BroadcastState", "StoredBroadcast", "read_broadcasts", "removals", "rooms_items", "state_items"]

KIND, ROOMS_KIND = "broadcast", "broadcast.rooms"
ROOMS_OF_RECORD = 1000


class BroadcastState(NamedTuple):
    """What is known of one broadcast.

    ``rooms``: how many it goes to; ``first`` and ``last``: it is posting to the rooms from ``first`` on and before
    ``last``, by their place in the list. ``reached`` does not count these.
    """

    id: str
    tenant: str
    fingerprint: bytes
    rooms: int
    reached: int = 0
    missed: int = 0
    is_done: bool = False
    first: int = 0
    last: int = 0


class StoredBroadcast(NamedTuple):
    """One broadcast as the ledger has it. ``message`` and ``rooms`` (qualified names) of one that is not done."""

    state: BroadcastState
    message: BroadcastMessage | None
    rooms: tuple[str, ...]


def state_items(state: BroadcastState, message: BroadcastMessage, at_ms: int) -> list[Item]:
    """Return what writes how far a broadcast is. One that is done needs its message and rooms no more."""
    body = pack_body((*state[2:], None if state.is_done else tuple(message)))
    items: list[Item] = [RecordPut(KIND, state.tenant, state.id, at_ms, body)]
    return [*items, *_rooms_removals(state)] if state.is_done else items


def rooms_items(state: BroadcastState, rooms: Sequence[str], at_ms: int) -> list[Item]:
    """Return what writes the rooms of a broadcast."""
    subject = qualify(state.tenant, state.id)
    return [
        RecordPut(ROOMS_KIND, subject, _part(start), at_ms, pack_body(tuple(rooms[start : start + ROOMS_OF_RECORD])))
        for start in _starts(len(rooms))
    ]


def removals(state: BroadcastState) -> list[RecordRemoved]:
    """Return what removes all records of a broadcast."""
    return [RecordRemoved(KIND, state.tenant, state.id), *_rooms_removals(state)]


def _rooms_removals(state: BroadcastState) -> list[RecordRemoved]:
    subject = qualify(state.tenant, state.id)
    return [RecordRemoved(ROOMS_KIND, subject, _part(start)) for start in _starts(state.rooms)]


def read_broadcasts(reader: Reader) -> list[StoredBroadcast]:
    """Return all recorded broadcasts, the oldest record first. Runs in the ledger's reading thread."""
    rooms: dict[str, tuple[str, ...]] = {}
    for subject, names in read_records(reader, ROOMS_KIND, lambda record, body: (record.subject, body)):
        rooms[subject] = (*rooms.get(subject, ()), *map(str, names))
    found = read_records(
        reader,
        KIND,
        lambda record, body: (
            record.at_ms,
            BroadcastState(record.name, record.subject, *body[:7]),
            None if body[7] is None else BroadcastMessage(*body[7]),
        ),
    )
    return [
        StoredBroadcast(state, message, rooms.get(qualify(state.tenant, state.id), ()))
        for _, state, message in sorted(found, key=lambda each: each[0])
    ]


def _starts(rooms: int) -> Iterator[int]:
    return iter(range(0, rooms, ROOMS_OF_RECORD))


def _part(start: int) -> str:
    return f"{start // ROOMS_OF_RECORD:06}"
