"""Highlights in the ledger: a record for each that is held, written with its event, so that a start finds them.

A record only names the order; the event has the rest, as it is after deletions and erasures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.core.commerce.highlights import HeldHighlight
from broker.core.rooms.effects import Record
from broker.core.tenants.names import qualify, tenant_of
from broker.ledger import Item, Reader, RecordPut, RecordRemoved, StoredRecord, make_key
from broker.ledger.records import read_records
from broker.rooms.room_history import read_page
from protocol.codes import MessageType
from protocol.frames import pack_body
from protocol.payloads import HighlightPayload, payload_record

__all__ = ["KIND", "highlight_items", "highlight_removals", "read_room_highlights"]

KIND = "room.highlight"
MAX_EVENT_BYTES = 64 * 1024


class _Stored(NamedTuple):
    room: str
    epoch: int
    order_id: str
    at_ms: int


def highlight_items(room: str, epoch: int, record: Record[Any]) -> list[Item]:
    """Return what the event of a highlight writes beside itself."""
    event = record.event
    if event.type != MessageType.HIGHLIGHT:
        return []
    items: list[Item] = [RecordRemoved(KIND, room, order) for order in record.left]
    if event.payload.until_ms > event.at_ms:
        items.append(RecordPut(KIND, room, event.payload.order_id, event.at_ms, pack_body((epoch,))))
    return items


def highlight_removals(room: str, epoch: int, highlights: Sequence[HeldHighlight]) -> list[RecordRemoved]:
    """Return what removes the highlights of a stream that has ended."""
    return [RecordRemoved(KIND, room, each.order_id) for each in highlights]


def read_room_highlights(reader: Reader) -> dict[tuple[str, int], tuple[HeldHighlight, ...]]:
    """Return the highlights of all rooms by room and epoch, in order of their offsets; one whose event is not kept is
    one whose time is over. Runs in the ledger's reading thread."""
    found: dict[tuple[str, int], list[HeldHighlight]] = {}
    for stored in read_records(reader, KIND, _stored):
        found.setdefault((stored.room, stored.epoch), []).append(_read(reader, stored))
    return {stream: tuple(sorted(held)) for stream, held in found.items()}


def _read(reader: Reader, stored: _Stored) -> HeldHighlight:
    known = reader.first_result(make_key("order", qualify(tenant_of(stored.room), stored.order_id)).digest)
    if known is not None:
        page = read_page(reader, stored.room, stored.epoch, known.offset - 1, known.offset, MAX_EVENT_BYTES)
        for offset, _, event, _ in page or ():
            payload = payload_record(event.type, event.payload)
            if isinstance(payload, HighlightPayload) and payload.order_id == stored.order_id:
                return HeldHighlight.of(payload, offset, event.at_ms)
    return HeldHighlight(0, stored.order_id, "", "", "", 0, 0, stored.at_ms, stored.at_ms)


def _stored(record: StoredRecord, body: Sequence[Any]) -> _Stored:
    return _Stored(record.subject, int(body[0]), record.name, record.at_ms)
