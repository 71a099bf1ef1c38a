"""Streams of rooms and their checkpoints, as one transaction changes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from broker.core.tenants.names import shown_name
from broker.ledger.entries import LedgerDamaged
from broker.ledger.inserting import insert_rows
from broker.ledger.rows import Tallies, checkpoint_checksum, stream_checksum

__all__ = ["StreamRow", "StreamRows"]

_STREAMS = (
    "INSERT OR REPLACE INTO streams (stream, room, epoch, last_offset, opened_at_ms, used_at_ms, ended_at_ms, crc)"
)
_CHECKPOINTS = "INSERT OR REPLACE INTO checkpoints (stream, at_ms, totals, crc)"
_SELECT_STREAM = (
    "SELECT s.stream, s.room, s.epoch, s.last_offset, s.opened_at_ms, s.used_at_ms, s.ended_at_ms, s.crc, c.crc"
    " FROM streams AS s LEFT JOIN checkpoints AS c USING (stream)"
)


class StreamRow:
    """A row of streams: one room's stream and where it ends.

    ``crc``: the checksum of the row in the file, None = it is not there yet; ``checkpoint_crc``: its checkpoint's.
    """

    __slots__ = (
        "checkpoint_crc",
        "crc",
        "ended_at_ms",
        "epoch",
        "id",
        "last_offset",
        "opened_at_ms",
        "room",
        "used_at_ms",
    )

    def __init__(
        self,
        id: int,
        room: str,
        epoch: int,
        last_offset: int,
        opened_at_ms: int,
        used_at_ms: int,
        ended_at_ms: int | None = None,
        crc: int | None = None,
        checkpoint_crc: int | None = None,
    ) -> None:
        self.id = id
        self.room = room
        self.epoch = epoch
        self.last_offset = last_offset
        self.opened_at_ms = opened_at_ms
        self.used_at_ms = used_at_ms
        self.ended_at_ms = ended_at_ms
        self.crc = crc
        self.checkpoint_crc = checkpoint_crc

    def copy(self) -> StreamRow:
        """Return a copy that a transaction may change."""
        return StreamRow(*self.columns(), self.crc, self.checkpoint_crc)

    def columns(self) -> tuple[int, str, int, int, int, int, int | None]:
        """The columns before the checksum."""
        return (
            self.id,
            self.room,
            self.epoch,
            self.last_offset,
            self.opened_at_ms,
            self.used_at_ms,
            self.ended_at_ms,
        )


class StreamRows:
    """Streams of one transaction. ``known``: rows in memory, which are copied before they are changed; ``next_number``:
    of the next stream."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        tallies: Tallies,
        known: Mapping[tuple[str, int], StreamRow],
        next_number: int,
    ) -> None:
        self.changed: dict[tuple[str, int], StreamRow] = {}
        """Streams that the transaction may have changed, by room and epoch."""
        self.removed: list[tuple[str, int]] = []
        self.next_number = next_number
        self._connection = connection
        self._tallies = tallies
        self._known = known
        self._checkpoints: dict[int, tuple[Any, ...]] = {}

    def open(self, room: str, epoch: int, at_ms: int) -> StreamRow:
        """Return the stream of a room in an epoch, to be changed here; a new one ends all others of the room."""
        stream = self.find(room, epoch)
        if stream is not None:
            return stream
        self.find_all("s.room = ? AND s.ended_at_ms IS NULL", (room,))
        for other in self.changed.values():
            if other.room == room and other.ended_at_ms is None:
                self.end(other, at_ms)
        return self.begin(room, epoch, at_ms, at_ms)

    def begin(self, room: str, epoch: int, opened_at_ms: int, used_at_ms: int) -> StreamRow:
        """Add a stream; the caller ends the others of the room."""
        stream = self.changed[room, epoch] = StreamRow(self.next_number, room, epoch, 0, opened_at_ms, used_at_ms)
        self.next_number += 1
        return stream

    def find(self, room: str, epoch: int) -> StreamRow | None:
        """Return the stream of a room in an epoch, to be changed here; None where there is none."""
        stream = self.changed.get((room, epoch))
        if stream is not None:
            return stream
        known = self._known.get((room, epoch))
        if known is not None:
            stream = self.changed[room, epoch] = known.copy()
            return stream
        found = self.find_all("s.room = ? AND s.epoch = ?", (room, epoch))
        return found[0] if found else None

    def find_all(self, where: str, parameters: tuple[Any, ...]) -> list[StreamRow]:
        """Return the streams of the file that match, to be changed here. LedgerDamaged where one is not as written."""
        found = []
        for row in self._connection.execute(f"{_SELECT_STREAM} WHERE {where}", parameters).fetchall():
            room, epoch = row[1], row[2]
            if row[7] != stream_checksum(*row[:7]):
                raise LedgerDamaged(f"stream {epoch} of room {shown_name(room)} is not what was written (checksum)")
            stream = self.changed.get((room, epoch))
            if stream is None:
                stream = self.changed[room, epoch] = StreamRow(*row)
            found.append(stream)
        return found

    def set_checkpoint(self, stream: StreamRow, at_ms: int, totals: bytes) -> None:
        """Write the checkpoint of a stream over its last one."""
        crc = checkpoint_checksum(stream.id, at_ms, totals)
        self._tallies["checkpoints"].replace(stream.checkpoint_crc, crc)
        stream.checkpoint_crc = crc
        self._checkpoints[stream.id] = stream.id, at_ms, totals, crc

    def end(self, stream: StreamRow, at_ms: int) -> None:
        """End a stream; its checkpoint goes."""
        stream.ended_at_ms = at_ms
        if stream.checkpoint_crc is not None:
            self._tallies["checkpoints"].remove(stream.checkpoint_crc)
            stream.checkpoint_crc = None
            self._checkpoints.pop(stream.id, None)
            self._connection.execute("DELETE FROM checkpoints WHERE stream = ?", (stream.id,))

    def forget(self, stream: StreamRow) -> None:
        """Delete a stream of the file, with its checkpoint."""
        self.end(stream, stream.used_at_ms)
        del self.changed[stream.room, stream.epoch]
        self.remove("s.stream = ?", (stream.id,))

    def remove(self, where: str, parameters: tuple[Any, ...]) -> int:
        """Delete ended streams; return how many."""
        rows = self._connection.execute(
            f"DELETE FROM streams WHERE stream IN (SELECT stream FROM streams AS s WHERE {where})"
            " RETURNING room, epoch, crc",
            parameters,
        ).fetchall()
        for room, epoch, crc in rows:
            self._tallies["streams"].remove(crc)
            self.removed.append((room, epoch))
        return len(rows)

    def write(self) -> None:
        """Write the streams that have changed, and their checkpoints."""
        tally = self._tallies["streams"]
        rows = []
        for stream in self.changed.values():
            columns = stream.columns()
            crc = stream_checksum(*columns)
            if crc != stream.crc:
                tally.replace(stream.crc, crc)
                stream.crc = crc
                rows.append((*columns, crc))
        insert_rows(self._connection, _STREAMS, rows)
        insert_rows(self._connection, _CHECKPOINTS, list(self._checkpoints.values()))
