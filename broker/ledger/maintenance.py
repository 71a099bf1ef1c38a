"""Maintenance between commits: checkpoints, expiry, retention, each in bounded batches.

A checkpoint moves the log into the database. Left to SQLite it happens inside some unlucky commit; here it happens when
no submission waits, or when the log has grown so long that it must. Retention removes the oldest first and leaves an
*anchor*, the last removed link of the hash chain, so that what remains can still be verified.

The wall clock decides what is old. When it leaps ahead (a wrong time server, a resumed machine) nothing is expired or
removed for a while, so that an hour's mistake does not empty the inboxes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from broker.ledger.store import OUTBOX, Store, outbox_row

__all__ = ["Maintenance", "Retention"]

BATCH_ROWS = 500
"""Rows that one step of one kind removes: some milliseconds."""
FREE_PAGES = 64
"""Pages given back to the file system in one step."""
DIRECT_EXPIRED = "direct.expired"
"""Topic of the outbox row that reports to the platform a message that expired."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, in seconds.

    ``max_bytes``: a database above it loses its oldest entries before their time; 0 = no such bound.
    """

    entries_s: float = 30 * 86_400.0
    keys_s: float = 30 * 86_400.0
    settled_directs_s: float = 7 * 86_400.0
    """Acknowledged and expired messages: their status can be asked for so long."""
    idle_rooms_s: float = 7 * 86_400.0
    """A room without an event for so long is ended: its next life is a new epoch."""
    max_bytes: int = 0


class Checkpoint(NamedTuple):
    """What a checkpoint found and did, in frames of the log."""

    log: int
    moved: int


class Maintenance:
    """Maintenance of one store, called by its thread."""

    def __init__(self, store: Store, retention: Retention) -> None:
        self._connection = store.connection
        self._store = store
        self._retention = retention
        self._key_cursor = b""
        self.expired = 0
        self.removed = 0

    def checkpoint(self) -> Checkpoint:
        """Move the log into the database as far as readers allow; the log then starts again from its beginning."""
        _, log, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return Checkpoint(log, moved)

    def step(self, wall_ms: int) -> bool:
        """Expire and remove one batch of each kind, in one transaction; return whether there was anything to do.

        sqlite3.Error leaves everything as it was.
        """
        parts = self._expire, self._prune_directs, self._prune_entries, self._prune_keys, self._end_rooms
        return self._transact(parts, wall_ms)

    def expire(self, wall_ms: int) -> bool:
        """As `step`, for direct messages that have expired alone."""
        return self._transact((self._expire,), wall_ms)

    def _transact(self, parts: Sequence[Callable[[sqlite3.Connection, int], bool]], wall_ms: int) -> bool:
        changed = False
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for part in parts:
                changed = part(connection, wall_ms) or changed
            connection.execute("COMMIT" if changed else "ROLLBACK")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if changed:
            # As a script: this pragma frees one page a step, and execute() takes only one step of it.
            connection.executescript(f"PRAGMA incremental_vacuum({FREE_PAGES})")
        return changed

    def _expire(self, connection: sqlite3.Connection, wall_ms: int) -> bool:
        rows = connection.execute(
            "SELECT id, user, direct_id, batch FROM directs WHERE state = 0 AND expires_at_ms <= ?"
            " ORDER BY expires_at_ms LIMIT ?",
            (wall_ms, BATCH_ROWS),
        ).fetchall()
        for each, user, direct_id, batch in rows:
            connection.execute("UPDATE directs SET state = 2 WHERE id = ?", (each,))
            body = json.dumps({"user": user, "direct_id": direct_id, "batch": batch}, ensure_ascii=False).encode()
            connection.execute(OUTBOX + "(?, ?, ?, ?, ?, ?)", outbox_row(DIRECT_EXPIRED, wall_ms, body))
        self.expired += len(rows)
        return bool(rows)

    def _prune_directs(self, connection: sqlite3.Connection, wall_ms: int) -> bool:
        horizon_ms = wall_ms - round(self._retention.settled_directs_s * 1000)
        return self._delete(
            "DELETE FROM directs WHERE id IN (SELECT id FROM directs WHERE at_ms < ? AND state > 0"
            " AND id < (SELECT coalesce(min(id), 0) FROM directs) + 10000 LIMIT ?)",
            (horizon_ms, BATCH_ROWS),
        )

    def _prune_entries(self, connection: sqlite3.Connection, wall_ms: int) -> bool:
        horizon_ms = wall_ms - round(self._retention.entries_s * 1000)
        if self._above_max_bytes():
            horizon_ms = wall_ms
        rows = connection.execute("SELECT seq, hash, at_ms FROM entries ORDER BY seq LIMIT ?", (BATCH_ROWS,)).fetchall()
        last: tuple[int, bytes] | None = None
        for seq, hashed, at_ms in rows:
            if at_ms >= horizon_ms:
                break
            last = seq, hashed
        if last is None:
            return False
        connection.execute("UPDATE head SET anchor_seq = ?, anchor_hash = ?", last)
        return self._delete("DELETE FROM entries WHERE seq <= ?", (last[0],))

    def _prune_keys(self, connection: sqlite3.Connection, wall_ms: int) -> bool:
        """Check the next batch of keys in their own order, cyclically: they need no second index."""
        horizon_ms = wall_ms - round(self._retention.keys_s * 1000)
        rows = connection.execute(
            "SELECT digest, at_ms FROM keys WHERE digest > ? ORDER BY digest LIMIT ?", (self._key_cursor, BATCH_ROWS)
        ).fetchall()
        self._key_cursor = rows[-1][0] if len(rows) == BATCH_ROWS else b""
        old = [(digest,) for digest, at_ms in rows if at_ms < horizon_ms]
        if old:
            connection.executemany("DELETE FROM keys WHERE digest = ?", old)
            self.removed += len(old)
        return bool(old)

    def _end_rooms(self, connection: sqlite3.Connection, wall_ms: int) -> bool:
        horizon_ms = wall_ms - round(self._retention.idle_rooms_s * 1000)
        ended = connection.execute(
            "UPDATE streams SET ended_at_ms = ? WHERE stream IN (SELECT stream FROM streams"
            " WHERE ended_at_ms IS NULL AND used_at_ms < ? LIMIT ?)",
            (wall_ms, horizon_ms, BATCH_ROWS),
        ).rowcount
        if ended:
            connection.execute(
                "DELETE FROM notes WHERE stream IN (SELECT stream FROM streams WHERE ended_at_ms = ?)", (wall_ms,)
            )
        gone = self._delete(
            "DELETE FROM streams WHERE stream IN (SELECT stream FROM streams AS s WHERE ended_at_ms < ?"
            " AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.stream = s.stream) LIMIT ?)",
            (wall_ms - round(self._retention.entries_s * 1000), BATCH_ROWS),
        )
        return ended > 0 or gone

    def _above_max_bytes(self) -> bool:
        limit = self._retention.max_bytes
        if not limit:
            return False
        read = self._connection.execute
        pages = read("PRAGMA page_count").fetchone()[0] - read("PRAGMA freelist_count").fetchone()[0]
        return bool(pages * read("PRAGMA page_size").fetchone()[0] > limit)

    def _delete(self, sql: str, parameters: tuple[int, ...]) -> bool:
        removed = self._connection.execute(sql, parameters).rowcount
        self.removed += removed
        return removed > 0
