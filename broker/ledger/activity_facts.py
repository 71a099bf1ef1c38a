"""Facts of the activities of rooms, in the order in which they were written."""

from __future__ import annotations

from collections.abc import Iterator

from broker.ledger.entries import ACTIVITY_FACTS, StoredEntry
from broker.ledger.reader import Reader, stored_entries

__all__ = ["activity_facts"]


def activity_facts(reader: Reader, room: str | None = None, epoch: int = 0) -> Iterator[StoredEntry]:
    """Yield the facts of the activities of one stream, or (``room`` None) of every stream that has not ended, stream
    by stream. LedgerDamaged, sqlite3.Error."""
    where = "s.ended_at_ms IS NULL" if room is None else "s.room = ? AND s.epoch = ?"
    values: tuple[str | int, ...] = () if room is None else (room, epoch)
    return stored_entries(reader, f"{where} AND e.kind = {ACTIVITY_FACTS} ORDER BY e.stream, e.seq", values)
