"""Bans of rooms in the ledger: a record for each user and room."""

from __future__ import annotations

from broker.core.rooms.bans import RoomBan
from broker.ledger import Reader, RecordPut, RecordRemoved
from broker.ledger.records import read_records
from protocol.frames import pack_body

__all__ = ["KIND", "ban_item", "ban_removal", "read_bans"]

KIND = "room.ban"


def ban_item(ban: RoomBan, at_ms: int) -> RecordPut:
    """Return the record of a ban."""
    return RecordPut(KIND, ban.room, ban.user, at_ms, pack_body((ban.until_ms, ban.reason)))


def ban_removal(ban: RoomBan) -> RecordRemoved:
    """Return what removes the record of a ban."""
    return RecordRemoved(KIND, ban.room, ban.user)


def read_bans(reader: Reader) -> list[RoomBan]:
    """Return all recorded bans. Runs in the ledger's reading thread."""
    return list(read_records(reader, KIND, lambda record, body: RoomBan(record.subject, record.name, *body[:2])))
