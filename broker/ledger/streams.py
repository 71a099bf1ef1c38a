"""One stream of a room in the ledger, whole: where it is, and all of its entries, its facts too, in pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from broker.ledger.entries import ACTIVITY_FACTS, ROOM_SAMPLED, StoredEntry
from broker.ledger.reader import Reader, stored_entries

__all__ = ["FoundStream", "all_entries", "entries_page", "find_stream", "last_before"]

SCAN_ENTRIES = 5000
"""Entries of all rooms that one page inspects."""
PAGE_ENTRIES = 500
"""Entries of the stream in one page: some milliseconds, in which no other question is answered."""


class FoundStream(NamedTuple):
    """A stream. ``after`` and ``last``: its entries have sequence numbers between them, the last one included."""

    room: str
    epoch: int
    opened_at_ms: int
    after: int
    last: int


def find_stream(reader: Reader, room: str, epoch: int | None = None) -> FoundStream | None:
    """Return the stream of a room in an epoch, None = the one that was opened last; None where there is none.

    What it has up to now, at the least: within `Reader.snapshot` no more than that.
    """
    where, values = ("room = ?", (room,)) if epoch is None else ("room = ? AND epoch = ?", (room, epoch))
    row = reader.connection.execute(
        f"SELECT stream, epoch, opened_at_ms FROM streams WHERE {where} ORDER BY stream DESC LIMIT 1", values
    ).fetchone()
    if row is None:
        return None
    stream, found_epoch, opened_at_ms = row
    # Each of these is one step in an index. What else a stream has follows one of them.
    firsts = reader.connection.execute(
        "SELECT (SELECT seq FROM entries WHERE stream = ?1 AND offset IS NOT NULL ORDER BY offset LIMIT 1),"
        f" (SELECT min(seq) FROM entries WHERE stream = ?1 AND kind = {ACTIVITY_FACTS}),"
        f" (SELECT min(seq) FROM entries WHERE stream = ?1 AND kind = {ROOM_SAMPLED})",
        (stream,),
    ).fetchone()
    last = reader.ends()[0].seq
    first = min((seq for seq in firsts if seq is not None), default=last + 1)
    return FoundStream(room, found_epoch, opened_at_ms, first - 1, last)


def last_before(reader: Reader, stream: FoundStream, at_ms: int) -> int:
    """Return the sequence number of the last entry of a stream that is not later than ``at_ms``. O(entries)."""
    where = "stream = (SELECT stream FROM streams WHERE room = ? AND epoch = ?) AND seq > ? AND seq <= ? AND at_ms <= ?"
    row = reader.connection.execute(
        f"SELECT max(seq) FROM entries WHERE {where}", (stream.room, stream.epoch, stream.after, stream.last, at_ms)
    ).fetchone()
    return stream.after if row[0] is None else int(row[0])


def entries_page(
    reader: Reader, stream: FoundStream, after: int, limit: int = PAGE_ENTRIES
) -> tuple[list[StoredEntry], int | None]:
    """Return entries of a stream after a sequence number, in order, and the number after which the next page begins,
    None = that is all. Runs in the ledger's reading thread. LedgerDamaged, sqlite3.Error."""
    after = max(after, stream.after)
    end = min(stream.last, after + SCAN_ENTRIES)
    where = (
        "e.stream = (SELECT stream FROM streams WHERE room = ? AND epoch = ?) AND e.seq > ? AND e.seq <= ?"
        " ORDER BY e.seq LIMIT ?"
    )
    found = list(stored_entries(reader, where, (stream.room, stream.epoch, after, end, limit)))
    if len(found) == limit:
        end = found[-1].seq
    return found, None if end >= stream.last else end


def all_entries(reader: Reader, stream: FoundStream) -> Iterator[StoredEntry]:
    """Yield all entries of a stream, in order. LedgerDamaged, sqlite3.Error."""
    after: int | None = stream.after
    while after is not None:
        found, after = entries_page(reader, stream, after, SCAN_ENTRIES)
        yield from found
