"""Keys of rooms in the ledger: a record a key, and one of the highest version, written with their event."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from broker.core.rooms.keys import KeyRecord, key_bytes
from broker.ledger import Item, Reader, RecordPut, RecordRemoved, StoredRecord
from broker.ledger.records import read_records
from protocol.codes import KeyCause, MessageType
from protocol.frames import pack_body
from protocol.messages import Event

__all__ = ["KIND", "StoredKeys", "key_deletions", "key_items", "key_removals", "read_room_keys"]

KIND = "room.key"
_VERSION = ""
"""Name of the record that has the highest version; the name of a key is never empty."""


class StoredKeys(NamedTuple):
    """Keys of a room without a task. ``last_version``: the highest that was given."""

    keys: tuple[KeyRecord, ...] = ()
    last_version: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, as a `KeySpace` counts them."""
        return sum(key_bytes(key.name, key.value, key.owner) for key in self.keys)

    def without(self, keys: Collection[KeyRecord]) -> StoredKeys:
        """Return them without some; no version of these is given again."""
        last_version = max([self.last_version, *(key.version for key in keys)])
        return StoredKeys(tuple(key for key in self.keys if key not in keys), last_version)


def key_items(room: str, event: Event) -> list[Item]:
    """Return what an event writes beside itself; nothing unless keys have changed."""
    if event.type != MessageType.KEYS_CHANGED:
        return []
    items: list[Item] = []
    for change in event.payload.changes:
        if change.cause is KeyCause.SET:
            body = change.value, change.version, change.expires_at_ms, change.owner, change.delete_on_leave
            items.append(RecordPut(KIND, room, change.name, event.at_ms, pack_body(body)))
        else:
            items.append(RecordRemoved(KIND, room, change.name))
            items.append(RecordPut(KIND, room, _VERSION, event.at_ms, pack_body((change.version,))))
    return items


def key_deletions(room: str, keys: Collection[KeyRecord], left: StoredKeys, at_ms: int) -> list[Item]:
    """Return what deletes keys of a room without a task. ``left``: what it has then."""
    removals = [RecordRemoved(KIND, room, key.name) for key in keys]
    return [*removals, RecordPut(KIND, room, _VERSION, at_ms, pack_body((left.last_version,)))]


def key_removals(room: str, names: Collection[str]) -> list[RecordRemoved]:
    """Return what removes the keys of a room that has ended."""
    return [RecordRemoved(KIND, room, name) for name in (*names, _VERSION)]


def read_room_keys(reader: Reader) -> dict[str, StoredKeys]:
    """Return the keys of all rooms. Runs in the ledger's reading thread."""
    found: dict[str, list[KeyRecord]] = {}
    versions: dict[str, int] = {}
    for room, stored in read_records(reader, KIND, _stored):
        if isinstance(stored, KeyRecord):
            found.setdefault(room, []).append(stored)
        else:
            versions[room] = stored
    return {
        room: StoredKeys(tuple(found.get(room, ())), versions.get(room, 0)) for room in found.keys() | versions.keys()
    }


def _stored(record: StoredRecord, body: Sequence[Any]) -> tuple[str, KeyRecord | int]:
    """Return the room of a record, and its key or its highest version."""
    return record.subject, body[0] if record.name == _VERSION else KeyRecord(record.name, *body[:5])
