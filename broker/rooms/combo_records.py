"""Combos of gifts in the ledger: a record for each that has started and not ended, written with its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.core.commerce.gifts import GiftCombo
from broker.core.rooms.effects import Record
from broker.ledger import Item, Reader, RecordPut, RecordRemoved, StoredRecord
from broker.ledger.records import read_records
from protocol.codes import MessageType
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = ["KIND", "combo_items", "combo_of", "combo_record", "combo_removals", "read_room_combos"]

KIND = "room.combo"


def combo_items(room: str, epoch: int, record: Record[Any]) -> list[Item]:
    """Return what a gift event writes beside itself."""
    event = record.event
    if event.type != MessageType.GIFT:
        return []
    if record.combo is not None:
        return [combo_record(room, epoch, record.combo, event.at_ms)]
    if event.payload.seq > 1:
        return [RecordRemoved(KIND, room, event.payload.combo)]
    return []


def combo_record(room: str, epoch: int, combo: GiftCombo, at_ms: int) -> RecordPut:
    """Return the record of a combo."""
    return RecordPut(KIND, room, combo.id, at_ms, pack_body((epoch, *combo[1:])))


def combo_of(record: StoredRecord) -> tuple[int, GiftCombo] | None:
    """Return the epoch and the combo of a record; None where it is of a later version."""
    try:
        body = unpack_body(record.body)
        return body[0], GiftCombo(record.name, *body[1:10])
    except (RemoteProtocolError, TypeError, IndexError):
        return None


def combo_removals(room: str, epoch: int, combos: Sequence[GiftCombo]) -> list[RecordRemoved]:
    """Return what removes combos of a stream that has ended."""
    return [RecordRemoved(KIND, room, combo.id) for combo in combos]


def read_room_combos(reader: Reader) -> dict[tuple[str, int], tuple[GiftCombo, ...]]:
    """Return the combos of all rooms by room and epoch. Runs in the ledger's reading thread."""
    found: dict[tuple[str, int], tuple[GiftCombo, ...]] = {}
    for stream, combo in read_records(reader, KIND, _stored):
        found[stream] = (*found.get(stream, ()), combo)
    return found


def _stored(record: StoredRecord, body: Sequence[Any]) -> tuple[tuple[str, int], GiftCombo]:
    return (record.subject, body[0]), GiftCombo(record.name, *body[1:10])
