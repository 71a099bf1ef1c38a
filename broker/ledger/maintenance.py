"""Maintenance between commits: checkpoints, expiry, retention, each in bounded batches.

A checkpoint moves the log into the database. Left to SQLite it happens inside some unlucky commit; here it happens when
no submission waits, or when the log has grown so long that it must. Retention removes the oldest first and leaves an
*anchor*, the last removed link of the hash chain, so that what remains can still be verified.

The wall clock decides what is old. When it leaps ahead (a wrong time server, a resumed machine) nothing is expired or
removed for a while, so that an hour's mistake does not empty the inboxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from broker.core.users.marketing import DAY_MS
from broker.ledger.entries import ACTIVITY_FACTS, DirectState, OutboxEntry
from broker.ledger.rows import CRC_MASK, state_mark
from broker.ledger.store import Store
from broker.ledger.transaction import Transaction

__all__ = ["LedgerReports", "Maintenance", "Retention"]

BATCH_ROWS = 500
"""Rows that one step of one kind removes: some milliseconds."""
SCAN_ROWS = 2000
"""Messages that one step checks for their age."""
FREE_PAGES = 64
"""Pages given back to the file system in one step."""
EXPIRY_GRACE_MS = 5000
"""How long after its expiry a message still counts as pending: it was shown in time, and its acknowledgement is on its
way."""
SCRUB_MEMORY_BYTES = 64 * 1024 * 1024
"""A database up to this size is rebuilt in memory, a larger one in a temporary file."""
_EXPIRE = (
    f"UPDATE directs SET state = {DirectState.EXPIRED:d},"
    f" crc = (crc + {state_mark(DirectState.EXPIRED)}) & {CRC_MASK} WHERE id = ?"
)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, in seconds.

    ``max_bytes``: a database above it loses its oldest entries and its acknowledged, expired and cancelled messages
    before their time; keys, pending messages and the outbox stay for theirs. 0 = no such bound.

    Entries from the first fact of an activity on stay as long as its room is not ended.
    """

    entries_s: float = 30 * 86_400.0
    keys_s: float = 30 * 86_400.0
    completed_directs_s: float = 7 * 86_400.0
    """Acknowledged, expired and cancelled messages: their status can be asked for so long."""
    idle_rooms_s: float = 7 * 86_400.0
    """A room without an event for so long is ended; when it is opened again it begins a new epoch."""
    outbox_s: float = 7 * 86_400.0
    """What the platform has not taken for so long is removed, dead letters too."""
    max_bytes: int = 0


class Checkpoint(NamedTuple):
    """What a checkpoint found and did, in frames of the log."""

    log: int
    moved: int


class LedgerReports:
    """What the outbox gets for what maintenance does; here nothing. Called in the store's thread. Times in Unix ms."""

    def direct_expired(self, user: str, direct_id: int, batch: str, at_ms: int) -> Sequence[OutboxEntry]:
        """Return the rows for a message that was not acknowledged in time."""
        return ()

    def room_ended_idle(self, room: str, epoch: int, at_ms: int) -> Sequence[OutboxEntry]:
        """Return the rows for a stream that ends because nothing has happened in it for long."""
        return ()


class Maintenance:
    """Maintenance of one store, called by its thread."""

    def __init__(
        self,
        store: Store,
        retention: Retention,
        reports: LedgerReports | None = None,
    ) -> None:
        self._reports = reports or LedgerReports()
        self._connection = store.connection
        self._store = store
        self._retention = retention
        self._key_cursor = b""
        self._direct_cursor = 0
        self._is_above_max = False
        self.expired = 0
        self.removed = 0

    def checkpoint(self) -> Checkpoint:
        """Move the log into the database as far as readers allow; the log then starts again from its beginning."""
        _, log, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return Checkpoint(log, moved)

    def rebuild(self) -> None:
        """Write the whole database anew from what it holds: of what was removed or replaced nothing is left in it.

        It costs about a second for 50 to 100 MB, and as much space again. sqlite3.Error leaves everything as it was.
        """
        read = self._connection.execute
        nbytes = read("PRAGMA page_count").fetchone()[0] * read("PRAGMA page_size").fetchone()[0]
        if nbytes > SCRUB_MEMORY_BYTES:
            read("PRAGMA temp_store=FILE")
        try:
            read("VACUUM")
        finally:
            read("PRAGMA temp_store=MEMORY")

    def empty_log(self) -> bool:
        """Move the whole log into the database and cut it to nothing; False while a reader needs it."""
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def step(self, wall_ms: int) -> bool:
        """Expire and remove one batch of each kind, in one transaction; return whether there was anything to do.

        sqlite3.Error leaves everything as it was.
        """
        self._is_above_max = self._above_max_bytes()
        parts = (
            self._expire, self._prune_directs, self._prune_entries, self._prune_keys, self._prune_outbox,
            self._end_rooms,
        )  # fmt: skip
        return self._transact(parts, wall_ms)

    def expire(self, wall_ms: int) -> bool:
        """As `step`, for direct messages that have expired alone."""
        return self._transact((self._expire,), wall_ms)

    def _transact(self, parts: Sequence[Callable[[Transaction, int], int]], wall_ms: int) -> bool:
        with self._store.maintain() as transaction:
            for part in parts:
                if part(transaction, wall_ms):
                    transaction.has_changed = True
        if transaction.has_changed:
            # As a script: this pragma frees one page a step, and execute() takes only one step of it.
            self._connection.executescript(f"PRAGMA incremental_vacuum({FREE_PAGES})")
        return transaction.has_changed

    def _expire(self, transaction: Transaction, wall_ms: int) -> int:
        rows = self._connection.execute(
            "SELECT id, user, direct_id, batch FROM directs WHERE state = 0 AND expires_at_ms <= ?"
            " ORDER BY expires_at_ms LIMIT ?",
            (wall_ms - EXPIRY_GRACE_MS, BATCH_ROWS),
        ).fetchall()
        for each, user, direct_id, batch in rows:
            self._connection.execute(_EXPIRE, (each,))
            for report in self._reports.direct_expired(user, direct_id, batch, wall_ms):
                transaction.outbox.add(report, direct_id)
        transaction.tallies.move_directs(len(rows), DirectState.PENDING, DirectState.EXPIRED)
        self.expired += len(rows)
        return len(rows)

    def _prune_directs(self, transaction: Transaction, wall_ms: int) -> int:
        """Check the next messages in the order of their numbers, cyclically: old pending ones hold up no others."""
        horizon_ms = wall_ms if self._is_above_max else wall_ms - _ms(self._retention.completed_directs_s)
        rows = self._connection.execute(
            "SELECT id, at_ms, state, marketing FROM directs WHERE id > ? ORDER BY id LIMIT ?",
            (self._direct_cursor, SCAN_ROWS),
        ).fetchall()
        counted_ms = min(horizon_ms, wall_ms - DAY_MS)  # by these it is known how many a user has had in a day
        old = [
            each
            for each, at_ms, state, marketing in rows
            if state != DirectState.PENDING and at_ms < (counted_ms if marketing else horizon_ms)
        ][:BATCH_ROWS]
        if len(old) == BATCH_ROWS:
            self._direct_cursor = old[-1]
        else:
            self._direct_cursor = rows[-1][0] if len(rows) == SCAN_ROWS else 0
        if not old:
            return 0
        removed = self._connection.execute(
            f"DELETE FROM directs WHERE id IN ({', '.join('?' * len(old))}) RETURNING crc, state", old
        ).fetchall()
        return self._count(transaction.tallies.remove_directs(removed))

    def _prune_entries(self, transaction: Transaction, wall_ms: int) -> int:
        """Remove the oldest entries, up to the first fact of an activity of a room that goes on."""
        horizon_ms = wall_ms if self._is_above_max else wall_ms - _ms(self._retention.entries_s)
        rows = self._connection.execute(
            "SELECT e.seq, e.hash, e.at_ms, e.kind = ? AND s.ended_at_ms IS NULL"
            " FROM entries AS e JOIN streams AS s ON s.stream = e.stream ORDER BY e.seq LIMIT ?",
            (ACTIVITY_FACTS, BATCH_ROWS),
        ).fetchall()
        last: tuple[int, bytes] | None = None
        for seq, hashed, at_ms, is_needed in rows:
            if at_ms >= horizon_ms or is_needed:
                break
            last = seq, hashed
        if last is None:
            return 0
        transaction.set_anchor(*last)
        return self._count(self._connection.execute("DELETE FROM entries WHERE seq <= ?", (last[0],)).rowcount)

    def _prune_keys(self, transaction: Transaction, wall_ms: int) -> int:
        """Check the next batch of keys in their own order, cyclically: they need no second index."""
        horizon_ms = wall_ms - _ms(self._retention.keys_s)
        rows = self._connection.execute(
            "SELECT digest, at_ms, crc FROM keys WHERE digest > ? ORDER BY digest LIMIT ?",
            (self._key_cursor, BATCH_ROWS),
        ).fetchall()
        self._key_cursor = rows[-1][0] if len(rows) == BATCH_ROWS else b""
        old = [(digest,) for digest, at_ms, _ in rows if at_ms < horizon_ms]
        for _, at_ms, crc in rows:
            if at_ms < horizon_ms:
                transaction.tallies["keys"].remove(crc)
        if old:
            self._connection.executemany("DELETE FROM keys WHERE digest = ?", old)
        return self._count(len(old))

    def _prune_outbox(self, transaction: Transaction, wall_ms: int) -> int:
        """Remove what was not taken in time, dead letters too, the oldest first."""
        rows = self._connection.execute(
            "DELETE FROM outbox WHERE at_ms < ? AND id IN (SELECT id FROM outbox ORDER BY id LIMIT ?) RETURNING crc",
            (wall_ms - _ms(self._retention.outbox_s), BATCH_ROWS),
        ).fetchall()
        for (crc,) in rows:
            transaction.tallies["outbox"].remove(crc)
        return self._count(len(rows))

    def _end_rooms(self, transaction: Transaction, wall_ms: int) -> int:
        horizon_ms = wall_ms - _ms(self._retention.idle_rooms_s)
        idle = transaction.streams.find_all(
            "s.ended_at_ms IS NULL AND s.used_at_ms < ? LIMIT ?", (horizon_ms, BATCH_ROWS)
        )
        for stream in idle:
            transaction.streams.end(stream, wall_ms)
            for report in self._reports.room_ended_idle(stream.room, stream.epoch, wall_ms) if stream.room else ():
                transaction.outbox.add(report)
        removed = transaction.streams.remove(
            "ended_at_ms < ? AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.stream = s.stream) LIMIT ?",
            (wall_ms - _ms(self._retention.entries_s), BATCH_ROWS),
        )
        return len(idle) + self._count(removed)

    def _above_max_bytes(self) -> bool:
        limit = self._retention.max_bytes
        if not limit:
            return False
        read = self._connection.execute
        pages = read("PRAGMA page_count").fetchone()[0] - read("PRAGMA freelist_count").fetchone()[0]
        return bool(pages * read("PRAGMA page_size").fetchone()[0] > limit)

    def _count(self, removed: int) -> int:
        self.removed += removed
        return removed


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
