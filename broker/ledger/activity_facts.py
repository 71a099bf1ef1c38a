"""Facts of the activities of rooms, in the order in which they were written."""

from __future__ import annotations

from collections.abc import Iterator

from broker.ledger.entries import ACTIVITY_FACTS, StoredEntry
from broker.ledger.reader import SCAN_ENTRIES, Reader, stored_entries

__all__ = ["activity_facts", "facts_with"]


def activity_facts(reader: Reader, room: str | None = None, epoch: int = 0) -> Iterator[StoredEntry]:
    """Yield the facts of the activities of one stream, or (``room`` None) of every stream that has not ended, stream
    by stream. LedgerDamaged, sqlite3.Error."""
    where = "s.ended_at_ms IS NULL" if room is None else "s.room = ? AND s.epoch = ?"
    values: tuple[str | int, ...] = () if room is None else (room, epoch)
    return stored_entries(reader, f"{where} AND e.kind = {ACTIVITY_FACTS} ORDER BY e.stream, e.seq", values)


def facts_with(reader: Reader, text: str, after: int, limit: int) -> tuple[list[StoredEntry], int | None]:
    """Return facts of activities after entry ``after`` that contain ``text``, in order, and the last entry that was
    inspected, None = that is all. LedgerDamaged, sqlite3.Error."""
    head = reader.head_row()
    last = min(head.seq, max(after, head.anchor_seq) + SCAN_ENTRIES)
    where = (
        f"e.seq > ? AND e.seq <= ? AND e.kind = {ACTIVITY_FACTS} AND e.offset IS NULL"
        f" AND instr({reader.plain('e.body', 'entries')}, ?) > 0 ORDER BY e.seq LIMIT ?"
    )
    found = list(stored_entries(reader, where, (after, last, text.encode(), limit)))
    if len(found) == limit:
        last = found[-1].seq
    return found, last if last < head.seq else None
