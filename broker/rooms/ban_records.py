"""Bans of rooms in the ledger: a record for each user and room."""

from __future__ import annotations

from broker.core.rooms.bans import RoomBan
from broker.ledger import Reader, RecordPut, RecordRemoved
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

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
    found: list[RoomBan] = []
    for record in reader.records(KIND):
        try:
            found.append(RoomBan(record.subject, record.name, *unpack_body(record.body)[:2]))
        except (RemoteProtocolError, TypeError):
            continue  # of a later version
    return found
