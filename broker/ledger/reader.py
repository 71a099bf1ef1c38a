"""The ledger's file as it is read: on a connection of its own that changes nothing, beside the writer.

Every row that leaves here has been checked against its checksum; one that is not what was written raises
LedgerDamaged, never passes. Every question has a bound on its answer. All methods block: off the event loop, one at
a time.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from broker.ledger.chain import ChainHead, checked, checksum, verify
from broker.ledger.entries import (
    DirectState,
    FailureKind,
    LedgerDamaged,
    LedgerRefused,
    StoredDirect,
    StoredEntry,
    StoredOutbox,
    StoredRoom,
)
from broker.ledger.head import Head
from broker.ledger.schema import connect, failure_kind_of, refusal_of, require_ledger
from broker.ledger.store import key_checksum

__all__ = ["Reader"]

PAGE_ROWS = 1000
"""Rows of one query while walking the whole book: no read holds up a checkpoint for long."""
TAIL_ENTRIES = 10_000
"""Entries whose chain is walked when the ledger is opened: a fraction of a second."""

_ENTRY = (
    "SELECT e.seq, s.room, s.epoch, coalesce(e.offset, 0), e.lane, e.kind, e.at_ms, e.body, e.crc, e.hash"
    " FROM entries AS e JOIN streams AS s ON s.stream = e.stream"
)
_DIRECT = "SELECT user, direct_id, kind, at_ms, expires_at_ms, state, body, crc FROM directs"
_OUTBOX = "SELECT id, topic, at_ms, due_at_ms, attempts, body, crc FROM outbox"
_PENDING = "FROM directs JOIN inboxes USING (user) WHERE state = 0 AND direct_id > acked_id"
"""What had expired before a later message was acknowledged waits for maintenance, not for its user."""

P = ParamSpec("P")
R = TypeVar("R")


def _tells_damage(
    method: Callable[Concatenate[Reader, P], R],
) -> Callable[Concatenate[Reader, P], R]:
    """SQLite's own ways of saying that the file is broken become LedgerDamaged."""

    @functools.wraps(method)
    def asked(self: Reader, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            # No name: the module itself could not make a value of what it was given.
            if failure_kind_of(error) is FailureKind.DAMAGED or not getattr(error, "sqlite_errorname", None):
                raise LedgerDamaged(f"{self.path}: {error}") from error
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise LedgerDamaged(f"{self.path}: a row is not what was written ({error})") from error

    return asked  # type: ignore[return-value]  # mypy wants wraps() to keep the name of self


class Reader:
    """Questions to the ledger at ``path``. LedgerRefused if it is none, of a newer version, or not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise LedgerRefused(f"{path}: there is no ledger")
        try:
            self._connection = connect(path, readonly=True)
        except (sqlite3.Error, ValueError) as error:
            raise refusal_of(path, error) from error
        try:
            if not require_ledger(self._connection, path):
                raise LedgerRefused(f"{path}: is empty")
        except (sqlite3.Error, ValueError) as error:
            self._connection.close()
            raise refusal_of(path, error) from error
        except BaseException:
            self._connection.close()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """The read-only connection, for a copy of the whole file."""
        return self._connection

    def close(self) -> None:
        """Close the connection; the file stays as it is."""
        self._connection.close()

    # ---- rooms

    @_tells_damage
    def rooms(self, limit: int = 100_000) -> list[StoredRoom]:
        """The streams that have not ended, used last first."""
        rows = self._connection.execute(
            "SELECT room, epoch, last_offset, used_at_ms, coalesce(note, x''), crc"
            " FROM streams LEFT JOIN notes USING (stream)"
            " WHERE ended_at_ms IS NULL AND room <> '' ORDER BY used_at_ms DESC, stream DESC LIMIT ?",
            (limit,),
        )
        found = []
        for room, epoch, last_offset, used_at_ms, note, crc in rows:
            if crc is not None and checksum(note) != crc:
                raise LedgerDamaged(f"{self.path}: the note of room {room} is not what was written (checksum)")
            found.append(StoredRoom(room, epoch, last_offset, used_at_ms, note))
        return found

    @_tells_damage
    def ended_rooms(self, since_ms: int, limit: int = 100_000) -> dict[str, int]:
        """Return the rooms that were ended since ``since_ms`` and not opened again, with the time of their end.

        A stream that retention ended for lack of use is not among them: it was used long before its end. Nor is one
        without events: viewers opened it and left.
        """
        rows = self._connection.execute(
            "SELECT room, max(ended_at_ms) AS at_ms FROM streams"
            " WHERE room <> '' AND (last_offset > 0 OR ended_at_ms IS NULL) GROUP BY room"
            " HAVING count(*) = count(ended_at_ms) AND at_ms >= ? AND max(used_at_ms) > at_ms - 3600000"
            " ORDER BY at_ms LIMIT ?",
            (since_ms, limit),
        )
        return dict(rows.fetchall())

    @_tells_damage
    def history(
        self, room: str, epoch: int, after: int, last: int, max_entries: int = 2000, max_bytes: int = 512 * 1024
    ) -> list[StoredEntry] | None:
        """The events with offsets ``after + 1`` to ``last``, all of them, in order.

        None where that cannot be had: some are removed, were never written, or they are more than the bounds allow.
        """
        if not 0 <= last - after <= max_entries:
            return None
        found: list[StoredEntry] = []
        nbytes = 0
        rows = self._connection.execute(
            f"{_ENTRY} WHERE s.room = ? AND s.epoch = ? AND e.offset > ? AND e.offset <= ? ORDER BY e.offset",
            (room, epoch, after, last),
        )
        for row in rows:
            entry = self._entry(row)
            nbytes += len(entry.body)
            if entry.offset != after + 1 + len(found) or nbytes > max_bytes:
                return None
            found.append(entry)
        return found if len(found) == last - after else None

    @_tells_damage
    def latest(self, room: str, epoch: int, since_ms: int, limit: int) -> list[StoredEntry]:
        """The newest events of a stream that are not older than ``since_ms``, oldest first, without a hole."""
        rows = self._connection.execute(
            f"{_ENTRY} WHERE s.room = ? AND s.epoch = ? AND e.offset IS NOT NULL ORDER BY e.offset DESC LIMIT ?",
            (room, epoch, limit),
        )
        found: list[StoredEntry] = []
        for row in rows:
            entry = self._entry(row)
            if entry.at_ms < since_ms or (found and entry.offset != found[-1].offset - 1):
                break
            found.append(entry)
        return found[::-1]

    # ---- inboxes, outbox

    @_tells_damage
    def inbox(self, user: str, after: int, limit: int = 1000) -> list[StoredDirect]:
        """Return pending messages of a user with numbers above ``after``, in order.

        Maintenance alone decides by the clock that a message has expired; until then it is pending.
        """
        rows = self._connection.execute(
            f"{_DIRECT} WHERE user = ? AND direct_id > ? AND state = 0 ORDER BY direct_id LIMIT ?",
            (user, after, limit),
        )
        return [self._direct(row) for row in rows]

    @_tells_damage
    def pending_inbox(self, user: str) -> tuple[int, int] | None:
        """What of a user is pending: the number before the first one, and the last one; None = nothing."""
        row = self._connection.execute(
            f"SELECT min(direct_id) - 1, max(direct_id) {_PENDING} AND user = ?", (user,)
        ).fetchone()
        return None if row[0] is None else (int(row[0]), int(row[1]))

    @_tells_damage
    def pending_inboxes(self, limit: int) -> list[tuple[str, int, int]]:
        """Users with pending messages, each with the two numbers of `pending_inbox`."""
        rows = self._connection.execute(
            f"SELECT user, min(direct_id) - 1, max(direct_id) {_PENDING} GROUP BY user LIMIT ?", (limit,)
        )
        return [(str(user), int(acked), int(last)) for user, acked, last in rows]

    @_tells_damage
    def direct(self, user: str, direct_id: int) -> StoredDirect | None:
        """One message, whatever its state, while it is kept."""
        rows = self._connection.execute(f"{_DIRECT} WHERE user = ? AND direct_id = ?", (user, direct_id)).fetchall()
        return self._direct(rows[0]) if rows else None

    @_tells_damage
    def batch_progress(self, batch: str) -> dict[DirectState, int]:
        """How many messages of a batch are in each state."""
        # The second term is what the index is made for; without it the whole table is read.
        rows = self._connection.execute(
            "SELECT state, count(*) FROM directs WHERE batch = ? AND batch <> '' GROUP BY state", (batch,)
        )
        return {state: 0 for state in DirectState} | {DirectState(state): count for state, count in rows}

    @_tells_damage
    def outbox_due(self, now_ms: int, limit: int = 100) -> list[StoredOutbox]:
        """Rows whose time has come, longest due first."""
        rows = self._connection.execute(
            f"{_OUTBOX} WHERE due_at_ms <= ? ORDER BY due_at_ms, id LIMIT ?",
            (now_ms, limit),
        )
        return [self._outbox(row) for row in rows]

    # ---- the whole book

    def ends(self) -> tuple[Head, ChainHead]:
        """The head, and the anchor that the first entry follows."""
        batch, seq, hashed, anchor_seq, anchor_hash = self._connection.execute(
            "SELECT batch, seq, hash, anchor_seq, anchor_hash FROM head"
        ).fetchone()
        return Head(batch, seq, hashed), (anchor_seq, anchor_hash)

    def entries(self, after: int = 0, last: int | None = None) -> Iterator[tuple[StoredEntry, int, bytes]]:
        """Entries in order of writing, each with its checksum and hash, unchecked: `chain.verify` walks them."""
        end = self.ends()[0].seq if last is None else last
        while after < end:
            rows = self._connection.execute(
                f"{_ENTRY} WHERE e.seq > ? AND e.seq <= ? ORDER BY e.seq LIMIT {PAGE_ROWS}", (after, end)
            ).fetchall()
            if not rows:
                return
            for row in rows:
                yield StoredEntry(*row[:8]), row[8], row[9]
            after = rows[-1][0]

    @_tells_damage
    def verify_tail(self, mark: Head | None, count: int = TAIL_ENTRIES) -> Head:
        """What is checked at each start: that nothing acknowledged is missing, and that the last entries are right.

        ``mark``: the high-water mark beside the file. LedgerDamaged names the place.
        """
        head, anchor = self.ends()
        if mark is not None and (head.batch < mark.batch or head.seq < mark.seq):
            raise LedgerDamaged(
                f"{self.path}: ends at commit {head.batch}, entry {head.seq}, but commit {mark.batch}, entry {mark.seq}"
                " was acknowledged: the write-ahead log is damaged or gone, or this is an older copy"
            )
        before = anchor
        if head.seq - anchor[0] > count:
            first = head.seq - count
            row = self._connection.execute("SELECT seq, hash FROM entries WHERE seq = ?", (first,)).fetchone()
            if row is None:
                raise LedgerDamaged(f"{self.path}: entry {first} is missing")
            before = row[0], row[1]
        self._verify_from(before, head)
        if mark is not None and mark.seq == head.seq and mark.hash != head.hash:
            raise LedgerDamaged(f"{self.path}: entry {head.seq} is not the one that was acknowledged")
        self._verify_streams()
        return head

    @_tells_damage
    def verify_all(self) -> int:
        """Check everything: SQLite's own structure, the whole chain, every row's checksum; returns the entries seen."""
        for (line,) in self._connection.execute("PRAGMA integrity_check(1)"):
            if line != "ok":
                raise LedgerDamaged(f"{self.path}: {line}")
        head, anchor = self.ends()
        self._verify_from(anchor, head)
        self._verify_streams()
        self.rooms()
        for row in self._connection.execute("SELECT digest, fingerprint, outcome, offset, answer, crc FROM keys"):
            if key_checksum(*row[:5]) != row[5]:
                raise LedgerDamaged(f"{self.path}: key {row[0].hex()} is not what was written (checksum)")
        for row in self._connection.execute(_DIRECT):
            self._direct(row)
        for row in self._connection.execute(_OUTBOX):
            self._outbox(row)
        return head.seq - anchor[0]

    def _verify_from(self, before: ChainHead, head: Head) -> None:
        last = verify(self.entries(before[0], head.seq), before, str(self.path))
        if last != (head.seq, head.hash):
            raise LedgerDamaged(f"{self.path}: entries {last[0] + 1} to {head.seq} are missing")

    def _verify_streams(self) -> None:
        """Every open stream ends where its last entry stands."""
        rows = self._connection.execute(
            "SELECT room, last_offset, (SELECT max(offset) FROM entries AS e WHERE e.stream = s.stream"
            " AND e.offset IS NOT NULL) AS top FROM streams AS s WHERE ended_at_ms IS NULL AND top <> last_offset"
        )
        for room, last_offset, top in rows:
            raise LedgerDamaged(f"{self.path}: room {room} ends at offset {last_offset}, its last event has {top}")

    # ---- rows

    # Any: rows of SQLite.
    def _entry(self, row: tuple[Any, ...]) -> StoredEntry:
        entry = StoredEntry(*row[:8])
        checked(entry, row[8], str(self.path))
        return entry

    def _direct(self, row: tuple[Any, ...]) -> StoredDirect:
        user, direct_id, kind, at_ms, expires_at_ms, state, body, crc = row
        if checksum(user, direct_id, kind, at_ms, expires_at_ms, body) != crc:
            raise LedgerDamaged(f"{self.path}: message {direct_id} of {user} is not what was written (checksum)")
        return StoredDirect(user, direct_id, kind, at_ms, expires_at_ms, DirectState(state), body)

    def _outbox(self, row: tuple[Any, ...]) -> StoredOutbox:
        each, topic, at_ms, due_at_ms, attempts, body, crc = row
        if checksum(topic, at_ms, body) != crc:
            raise LedgerDamaged(f"{self.path}: outbox row {each} is not what was written (checksum)")
        return StoredOutbox(each, topic, at_ms, due_at_ms or 0, attempts, body)
