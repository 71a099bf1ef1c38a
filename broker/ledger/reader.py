"""The ledger's file as it is read: on a connection of its own that changes nothing, beside the writer.

Every row that leaves here has been checked against its checksum; one that is not what was written raises
LedgerDamaged, never passes. Every question has a bound on its answer. All methods block: off the event loop, one at
a time.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from broker.core.tenants.names import shown_name
from broker.ledger.chain import REDACTED_BYTES, ChainHead, ChainRow, checked, verify
from broker.ledger.entries import (
    DirectState,
    FailureKind,
    KeyResult,
    LedgerCut,
    LedgerDamaged,
    LedgerRefused,
    OutboxCounts,
    StoredDirect,
    StoredEntry,
    StoredOutbox,
    StoredRecord,
    StoredRoom,
)
from broker.ledger.head import Head, HeadFile
from broker.ledger.rows import (
    TABLES,
    HeadRow,
    Tallies,
    checkpoint_checksum,
    direct_checksum,
    inbox_checksum,
    key_checksum,
    outbox_checksum,
    read_head,
    record_checksum,
    stream_checksum,
)
from broker.ledger.schema import (
    DELETION_KIND,
    connect,
    database_path,
    failure_kind_of,
    mark_path,
    refusal_of,
    require_ledger,
)
from broker.ledger.transaction import read_keys

__all__ = ["Reader", "open_directory"]

PAGE_ROWS = 1000
"""Rows of one query while reading the whole ledger."""
TAIL_ENTRIES = 10_000
"""Entries whose chain is checked when the ledger is opened: a fraction of a second."""

SCAN_ENTRIES = 5000
"""Entries that `Reader.entries_with` inspects: a few milliseconds, in which no other question is answered."""

_ENTRY = (
    "SELECT e.seq, s.room, s.epoch, coalesce(e.offset, 0), e.lane, e.kind, e.at_ms, e.body, e.crc, e.hash, e.salt"
    " FROM entries AS e JOIN streams AS s ON s.stream = e.stream"
)
_STREAM = "SELECT stream, room, epoch, last_offset, opened_at_ms, used_at_ms, ended_at_ms, crc FROM streams"
_INBOX = "SELECT user, last_id, acked_id, at_ms, crc FROM inboxes"
_DIRECT = "SELECT user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, crc FROM directs"
_OUTBOX = "SELECT id, endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body, crc FROM outbox"
_RECORD = "SELECT kind, subject, name, at_ms, body, crc FROM records"
_PENDING = "FROM directs JOIN inboxes USING (user) WHERE state = 0 AND direct_id > acked_id"
"""What had expired before a later message was acknowledged waits for maintenance, not for its user."""

P = ParamSpec("P")
R = TypeVar("R")


def _reports_damage(
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

    @contextmanager
    def snapshot(self) -> Iterator[HeadRow]:
        """Context in which every read sees one moment, whatever is written or removed beside it; gives the head.

        The write-ahead log grows meanwhile: a checkpoint cannot pass this moment. May be nested.
        """
        is_outer = not self._connection.in_transaction
        if is_outer:
            self._connection.execute("BEGIN")
        try:
            yield self._head()
        finally:
            if is_outer and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @_reports_damage
    def _head(self) -> HeadRow:
        return read_head(self._connection, str(self.path))

    # ---- rooms

    @_reports_damage
    def rooms(self, limit: int = 100_000) -> list[StoredRoom]:
        """Return the streams that have not ended, used last first."""
        rows = self._connection.execute(
            f"SELECT s.*, c.at_ms, c.totals, c.crc FROM ({_STREAM}"
            " WHERE ended_at_ms IS NULL AND room <> '') AS s LEFT JOIN checkpoints AS c USING (stream)"
            " ORDER BY s.used_at_ms DESC, s.stream DESC LIMIT ?",
            (limit,),
        )
        found = []
        for row in rows:
            _, room, epoch, last_offset, _, used_at_ms, _, _ = self._stream(row[:8])
            at_ms, totals, crc = row[8:]
            if crc is not None and checkpoint_checksum(row[0], at_ms, totals) != crc:
                raise LedgerDamaged(
                    f"{self.path}: the checkpoint of room {shown_name(room)} is not what was written (checksum)"
                )
            found.append(StoredRoom(room, epoch, last_offset, used_at_ms, b"" if totals is None else totals))
        return found

    @_reports_damage
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

    @_reports_damage
    def history(
        self,
        room: str,
        epoch: int,
        after: int,
        last: int,
        max_entries: int = 2000,
        max_bytes: int = 512 * 1024,
        *,
        fits: bool = False,
    ) -> list[StoredEntry] | None:
        """The events with offsets ``after + 1`` to ``last``, all of them, in order.

        None where that cannot be had: some are removed, were never written, or they are more than the bounds allow.
        ``fits``: the first of them that are within ``max_bytes``, and at least one, in place of all or none.
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
            if entry.offset != after + 1 + len(found):
                return None
            if nbytes > max_bytes and (found or not fits):
                return found if fits else None
            found.append(entry)
        return found if len(found) == last - after else None

    @_reports_damage
    def deletions(self, room: str, epoch: int, after: int, limit: int) -> list[StoredEntry]:
        """Return the events of a stream after an offset that delete messages, in order; at most ``limit``."""
        where = f"s.room = ? AND s.epoch = ? AND e.offset > ? AND e.kind = {DELETION_KIND} ORDER BY e.offset LIMIT ?"
        return list(stored_entries(self, where, (room, epoch, after, limit)))

    @_reports_damage
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

    @_reports_damage
    def inbox(self, user: str, after: int, limit: int = 1000, *, is_pending_only: bool = True) -> list[StoredDirect]:
        """Return messages of a user with numbers above ``after``, in order: those that are pending, or all.

        Maintenance alone decides by the clock that a message has expired; until then it is pending.
        """
        rows = self._connection.execute(
            f"{_DIRECT} WHERE user = ? AND direct_id > ?{' AND state = 0' if is_pending_only else ''}"
            " ORDER BY direct_id LIMIT ?",
            (user, after, limit),
        )
        return [self._direct(row) for row in rows]

    @_reports_damage
    def pending_inbox(self, user: str) -> tuple[int, int] | None:
        """What of a user is pending: the number before the first one, and the last one; None = nothing."""
        row = self._connection.execute(
            f"SELECT min(direct_id) - 1, max(direct_id) {_PENDING} AND user = ?", (user,)
        ).fetchone()
        return None if row[0] is None else (int(row[0]), int(row[1]))

    @_reports_damage
    def pending_inboxes(self, limit: int) -> list[tuple[str, int, int]]:
        """Return the users with pending messages, each with the two numbers of `pending_inbox`."""
        rows = self._connection.execute(
            "SELECT user, last_id, acked_id, inboxes.at_ms, inboxes.crc, min(direct_id) - 1, max(direct_id)"
            f" {_PENDING} GROUP BY user LIMIT ?",
            (limit,),
        )
        return [(str(self._inbox(row[:5])[0]), int(row[5]), int(row[6])) for row in rows]

    @_reports_damage
    def direct(self, user: str, direct_id: int) -> StoredDirect | None:
        """One message, whatever its state, while it is kept."""
        rows = self._connection.execute(f"{_DIRECT} WHERE user = ? AND direct_id = ?", (user, direct_id)).fetchall()
        return self._direct(rows[0]) if rows else None

    @_reports_damage
    def batch_progress(self, batch: str) -> dict[DirectState, int]:
        """How many messages of a batch are in each state."""
        # The second term is what the index is made for; without it the whole table is read.
        rows = self._connection.execute(
            "SELECT state, count(*) FROM directs WHERE batch = ? AND batch <> '' GROUP BY state", (batch,)
        )
        return {state: 0 for state in DirectState} | {DirectState(state): count for state, count in rows}

    @_reports_damage
    def outbox_waiting(
        self, endpoint: str, after: int, limit: int, max_bytes: int, line: str | None = None
    ) -> tuple[list[StoredOutbox], bool]:
        """Return what waits for an endpoint (in one line of it) with ids above ``after``, in order, and whether that
        is all. Ends after the row with which the bodies exceed ``max_bytes``."""
        names = (endpoint,) if line is None else (endpoint, line)
        rows = self._connection.execute(
            f"{_OUTBOX} WHERE endpoint = ?{'' if line is None else ' AND line = ?'} AND id > ?"
            " AND due_at_ms IS NOT NULL ORDER BY id LIMIT ?",
            (*names, after, limit),
        )
        found: list[StoredOutbox] = []
        for row in rows:
            found.append(self._outbox(row))
            max_bytes -= len(found[-1].body)
            if max_bytes < 0:
                return found, False
        return found, len(found) < limit

    @_reports_damage
    def outbox_page(self, endpoint: str | None, dead: bool, after: int, limit: int) -> list[StoredOutbox]:
        """Return rows with ids above ``after`` in order: dead letters, or what waits; ``endpoint`` None = of all."""
        where = "id > ? AND due_at_ms IS NULL" if dead else "id > ? AND due_at_ms IS NOT NULL"
        names: tuple[Any, ...] = (after,)
        if endpoint is not None:
            where, names = f"{where} AND endpoint = ?", (after, endpoint)
        rows = self._connection.execute(f"{_OUTBOX} WHERE {where} ORDER BY id LIMIT ?", (*names, limit))
        return [self._outbox(row) for row in rows]

    @_reports_damage
    def outbox_rows(self, ids: Sequence[int]) -> list[StoredOutbox]:
        """Return the rows with these ids that there are, in order."""
        rows = self._connection.execute(
            f"{_OUTBOX} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (json.dumps(list(ids)),)
        )
        return [self._outbox(row) for row in rows]

    @_reports_damage
    def outbox_counts(self, endpoint: str) -> OutboxCounts:
        """Count the rows of an endpoint. O(rows of it), from an index."""
        execute = self._connection.execute
        waiting = execute(
            "SELECT count(*), min(id) FROM outbox WHERE endpoint = ? AND due_at_ms IS NOT NULL", (endpoint,)
        ).fetchone()
        oldest = execute("SELECT at_ms FROM outbox WHERE id = ?", (waiting[1],)).fetchone()
        dead = execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM outbox WHERE endpoint = ? AND due_at_ms IS NULL",
            (endpoint,),
        ).fetchone()
        return OutboxCounts(waiting[0], 0 if oldest is None else oldest[0], *dead)

    # ---- keys

    def first_result(self, digest: bytes) -> KeyResult | None:
        """Return what the first submission with a key came to; None: the key is not known, or not kept any more."""
        return read_keys(self._connection, (digest,)).get(digest)

    # ---- records

    @_reports_damage
    def records(
        self,
        kind: str,
        subject: str | None = None,
        *,
        text: str | None = None,
        after: tuple[str, str] = ("", ""),
        limit: int = 100_000,
    ) -> list[StoredRecord]:
        """Return the records of a kind, or of one subject of it, ordered by subject and name.

        ``text``: only those that have it as their name or anywhere in their body. ``after``: subject and name of the
        last record of the page before; ("", "") also gives the record with those names.
        """
        where = "kind = ?" if subject is None else "kind = ? AND subject = ?"
        values: tuple[str | bytes, ...] = (kind,) if subject is None else (kind, subject)
        if text is not None:
            where, values = f"{where} AND (name = ? OR instr(body, ?) > 0)", (*values, text, text.encode())
        if after != ("", ""):
            where, values = f"{where} AND (subject, name) > (?, ?)", (*values, *after)
        rows = self._connection.execute(f"{_RECORD} WHERE {where} ORDER BY subject, name LIMIT ?", (*values, limit))
        return [self._record(row) for row in rows]

    # ---- the whole ledger

    @_reports_damage
    def entries_with(self, text: str, after: int, limit: int, max_bytes: int) -> tuple[list[StoredEntry], int | None]:
        """Return events after entry ``after`` whose body contains ``text``, in order, and the last entry that was
        inspected, None = that is all. Ends after the event with which the bodies exceed ``max_bytes``.
        """
        row = self._head()
        after = max(after, row.anchor_seq)
        last = min(row.seq, after + SCAN_ENTRIES)
        found: list[StoredEntry] = []
        for each in self._connection.execute(
            f"{_ENTRY} WHERE e.seq > ? AND e.seq <= ? AND e.offset IS NOT NULL AND instr(e.body, ?) > 0"
            " ORDER BY e.seq LIMIT ?",
            (after, last, text.encode(), limit),
        ):
            found.append(self._entry(each))
            max_bytes -= len(found[-1].body)
            if max_bytes < 0 or len(found) == limit:
                return found, found[-1].seq if found[-1].seq < row.seq else None
        return found, last if last < row.seq else None

    def ends(self) -> tuple[Head, ChainHead]:
        """Return the head, and the anchor that the first entry follows."""
        row = self._head()
        return row.head, row.anchor

    def entries(self, after: int = 0, last: int | None = None) -> Iterator[ChainRow]:
        """Yield entries in order of writing, each as a `ChainRow`, unchecked: `chain.verify` checks them.

        Within `snapshot`, where retention may remove some meanwhile.
        """
        end = self.ends()[0].seq if last is None else last
        while after < end:
            rows = self._connection.execute(
                f"{_ENTRY} WHERE e.seq > ? AND e.seq <= ? ORDER BY e.seq LIMIT {PAGE_ROWS}", (after, end)
            ).fetchall()
            if not rows:
                return
            for row in rows:
                yield StoredEntry(*row[:8]), *row[8:]
            after = rows[-1][0]

    @_reports_damage
    def redacted(self) -> int:
        """Count the entries whose bodies were replaced. O(entries)."""
        rows = self._connection.execute("SELECT count(*) FROM entries WHERE length(salt) = ?", (REDACTED_BYTES,))
        return int(rows.fetchone()[0])

    @_reports_damage
    def verify_tail(self, mark: Head | None, count: int = TAIL_ENTRIES) -> Head:
        """Check what is checked at each start: that nothing acknowledged is missing, and that the last entries are
        right. Return the end of the ledger.

        ``mark``: the high-water mark beside the file, read before. LedgerCut where they do not agree; LedgerDamaged
        names the place; LedgerRefused for a copy.
        """
        with self.snapshot() as row:
            head, anchor = row.head, row.anchor
            if row.is_copy:
                raise LedgerRefused(
                    f"{self.path}: a copy made by `roomcast ledger backup`;"
                    " `roomcast ledger restore` makes a ledger of it"
                )
            self._compare(row, mark)
            before = anchor
            if head.seq - anchor[0] > count:
                first = head.seq - count
                found = self._connection.execute("SELECT seq, hash FROM entries WHERE seq = ?", (first,)).fetchone()
                if found is None:
                    raise LedgerDamaged(f"{self.path}: entry {first} is missing")
                before = found[0], found[1]
            self._verify_from(before, head)
            self._verify_stream_ends()
        return head

    def _compare(self, row: HeadRow, mark: Head | None) -> None:
        """Compare the end of the file with the high-water mark. LedgerCut where they do not agree."""
        head = row.head
        if mark is None:
            if not head.seq and Tallies.load(row.tallies).is_empty:
                return
            raise LedgerCut(
                self.path, f"there is no high-water mark that can be read: what followed entry {head.seq} is unknown"
            )
        if mark.lineage != head.lineage:
            raise LedgerCut(self.path, "it has another history than the high-water mark beside it")
        if head.batch < mark.batch or head.seq < mark.seq:
            raise LedgerCut(
                self.path,
                f"ends at commit {head.batch}, entry {head.seq}, but commit {mark.batch}, entry {mark.seq} was"
                " acknowledged: the write-ahead log is damaged or gone, or this is an older copy",
            )
        if mark.seq == head.seq and mark.hash != head.hash:
            raise LedgerDamaged(f"{self.path}: entry {head.seq} is not the one that was acknowledged")
        if mark.batch == head.batch and mark.seal != head.seal:
            raise LedgerDamaged(f"{self.path}: commit {head.batch} is not the one that was acknowledged")

    @_reports_damage
    def verify_all(self) -> int:
        """Check everything at one moment: SQLite's structure, the whole chain, every row and the tallies of all tables.

        Return the number of entries. LedgerDamaged names the first difference.
        """
        with self.snapshot() as row:
            for (line,) in self._connection.execute("PRAGMA integrity_check(1)"):
                if line != "ok":
                    raise LedgerDamaged(f"{self.path}: {line}")
            self._verify_from(row.anchor, row.head)
            self._verify_stream_ends()
            self._verify_tallies(Tallies.load(row.tallies))
            return row.seq - row.anchor_seq

    def _verify_tallies(self, sealed: Tallies) -> None:
        """Check every row beside the chain, and that none is missing or too many."""
        found = Tallies()
        execute = self._connection.execute
        for row in execute(_STREAM):
            found["streams"].add(self._stream(row)[-1])
        for stream, at_ms, totals, crc in execute("SELECT stream, at_ms, totals, crc FROM checkpoints"):
            if checkpoint_checksum(stream, at_ms, totals) != crc:
                raise LedgerDamaged(
                    f"{self.path}: the checkpoint of stream {stream} is not what was written (checksum)"
                )
            found["checkpoints"].add(crc)
        for row in execute("SELECT digest, fingerprint, outcome, offset, answer, at_ms, crc FROM keys"):
            if key_checksum(*row[:6]) != row[6]:
                raise LedgerDamaged(f"{self.path}: key {row[0].hex()} is not what was written (checksum)")
            found["keys"].add(row[6])
        for row in execute(_INBOX):
            found["inboxes"].add(self._inbox(row)[-1])
        for row in execute(_DIRECT):
            found.add_direct(row[-1], self._direct(row).state)
        for row in execute(_OUTBOX):
            self._outbox(row)
            found["outbox"].add(row[-1])
        for row in execute(_RECORD):
            self._record(row)
            found["records"].add(row[-1])
        for table in TABLES:
            rows, expected = found[table].rows, sealed[table].rows
            if rows != expected:
                raise LedgerDamaged(f"{self.path}: table {table} has {rows} rows, {expected} were written")
            if found[table].sum != sealed[table].sum:
                raise LedgerDamaged(f"{self.path}: a row of table {table} is not the one that was written last")
        if found.states != sealed.states:
            raise LedgerDamaged(
                f"{self.path}: direct messages by state are {found.states}, written were {sealed.states}"
            )

    def _verify_from(self, before: ChainHead, head: Head) -> None:
        last = verify(self.entries(before[0], head.seq), before, str(self.path))
        if last != (head.seq, head.hash):
            raise LedgerDamaged(f"{self.path}: entries {last[0] + 1} to {head.seq} are missing")

    def _verify_stream_ends(self) -> None:
        """Check that every stream ends where its last entry stands."""
        rows = self._connection.execute(
            "SELECT room, last_offset, (SELECT max(offset) FROM entries AS e WHERE e.stream = s.stream"
            " AND e.offset IS NOT NULL) AS top FROM streams AS s WHERE top <> last_offset"
        )
        for room, last_offset, top in rows:
            raise LedgerDamaged(
                f"{self.path}: room {shown_name(room)} ends at offset {last_offset}, its last event has {top}"
            )

    # ---- rows

    # Any: rows of SQLite.
    def _entry(self, row: tuple[Any, ...]) -> StoredEntry:
        entry = StoredEntry(*row[:8])
        checked(entry, row[8], str(self.path))
        return entry

    def _stream(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        if stream_checksum(*row[:7]) != row[7]:
            raise LedgerDamaged(
                f"{self.path}: stream {row[2]} of room {shown_name(row[1])} is not what was written (checksum)"
            )
        return row

    def _inbox(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        if inbox_checksum(*row[:4]) != row[4]:
            raise LedgerDamaged(f"{self.path}: the inbox of {row[0]} is not what was written (checksum)")
        return row

    def _direct(self, row: tuple[Any, ...]) -> StoredDirect:
        user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, crc = row
        if direct_checksum(*row[:8]) != crc:
            raise LedgerDamaged(f"{self.path}: message {direct_id} of {user} is not what was written (checksum)")
        return StoredDirect(user, direct_id, kind, at_ms, expires_at_ms, DirectState(state), body, batch)

    def _outbox(self, row: tuple[Any, ...]) -> StoredOutbox:
        if outbox_checksum(*row[1:-1]) != row[-1]:
            raise LedgerDamaged(f"{self.path}: outbox row {row[0]} is not what was written (checksum)")
        return StoredOutbox(*row[:-1])

    def _record(self, row: tuple[Any, ...]) -> StoredRecord:
        if record_checksum(*row[:5]) != row[5]:
            raise LedgerDamaged(f"{self.path}: record {row[0]} of {row[1]} is not what was written (checksum)")
        return StoredRecord(*row[:5])


def stored_entries(reader: Reader, where: str, values: tuple[str | int, ...]) -> Iterator[StoredEntry]:
    """Yield the entries that a condition of SQL selects, of the tables ``e`` (entries) and ``s`` (their streams)."""
    for row in reader.connection.execute(f"{_ENTRY} WHERE {where}", values):
        yield reader._entry(row)


def open_directory(directory: Path) -> Reader:
    """Open the ledger of a data directory and check it as the broker does at its start (`Reader.verify_tail`).

    LedgerRefused, LedgerDamaged, LedgerCut.
    """
    reader = Reader(database_path(directory))
    try:
        reader.verify_tail(HeadFile.read(mark_path(directory)))
    except BaseException:
        reader.close()
        raise
    return reader
