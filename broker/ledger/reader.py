"""The ledger's file as it is read: on a connection of its own that changes nothing, beside the writer.

Every row that leaves here has been checked against its checksum; one that is not what was written raises
LedgerDamaged, never passes. Every question has a bound on its answer. All methods block: off the event loop, one at
a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from broker.core.tenants.names import shown_name
from broker.ledger.entries import (
    DirectState,
    KeyResult,
    LedgerDamaged,
    OutboxCounts,
    StoredDirect,
    StoredEntry,
    StoredOutbox,
    StoredRecord,
    StoredRoom,
)
from broker.ledger.head import HeadFile
from broker.ledger.key_file import LedgerKeys
from broker.ledger.key_rows import read_keys
from broker.ledger.row_reader import (
    SELECT_DIRECT,
    SELECT_ENTRY,
    SELECT_INBOX,
    SELECT_OUTBOX,
    SELECT_RECORD,
    SELECT_STREAM,
    reports_damage,
)
from broker.ledger.rows import checkpoint_checksum
from broker.ledger.schema import DELETION_KIND, database_path, mark_path
from broker.ledger.verification import VerifyingReader

__all__ = ["Reader", "open_directory", "stored_entries"]

SCAN_ENTRIES = 5000
"""Entries that `Reader.entries_with` inspects: a few milliseconds, in which no other question is answered."""

DirectRow = tuple[str, int, int, int, int, int, str, bytes, int]
"""User, number, kind, at_ms, expires_at_ms, state, batch, body as it was written, whether it is marketing."""

_DIRECT_WITH_ID = SELECT_DIRECT.replace("SELECT ", "SELECT id, ", 1)
_PENDING = "FROM directs JOIN inboxes USING (user) WHERE state = 0 AND direct_id > acked_id"
"""What had expired before a later message was acknowledged waits for maintenance, not for its user."""


class Reader(VerifyingReader):
    """Questions to the ledger at ``path``. LedgerRefused if it is none, of a newer version, or not there."""

    # ---- rooms

    @reports_damage
    def rooms(self, limit: int = 100_000) -> list[StoredRoom]:
        """Return the streams that have not ended, used last first."""
        rows = self._connection.execute(
            f"SELECT s.*, c.at_ms, c.totals, c.crc FROM ({SELECT_STREAM}"
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
            found.append(
                StoredRoom(
                    room,
                    epoch,
                    last_offset,
                    used_at_ms,
                    b"" if totals is None else self.cipher.decrypt("checkpoints", totals),
                )
            )
        return found

    @reports_damage
    def open_rooms(self) -> int:
        """Count the streams that have not ended."""
        where = "ended_at_ms IS NULL AND room <> ''"
        return int(self._connection.execute(f"SELECT count(*) FROM streams WHERE {where}").fetchone()[0])

    @reports_damage
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

    @reports_damage
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
            f"{SELECT_ENTRY} WHERE s.room = ? AND s.epoch = ? AND e.offset > ? AND e.offset <= ? ORDER BY e.offset",
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

    @reports_damage
    def deletions(self, room: str, epoch: int, after: int, limit: int) -> list[StoredEntry]:
        """Return the events of a stream after an offset that delete messages, in order; at most ``limit``."""
        where = f"s.room = ? AND s.epoch = ? AND e.offset > ? AND e.kind = {DELETION_KIND} ORDER BY e.offset LIMIT ?"
        return list(stored_entries(self, where, (room, epoch, after, limit)))

    @reports_damage
    def latest(self, room: str, epoch: int, since_ms: int, limit: int) -> list[StoredEntry]:
        """The newest events of a stream that are not older than ``since_ms``, oldest first, without a hole."""
        rows = self._connection.execute(
            f"{SELECT_ENTRY} WHERE s.room = ? AND s.epoch = ? AND e.offset IS NOT NULL ORDER BY e.offset DESC LIMIT ?",
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

    @reports_damage
    def inbox(self, user: str, after: int, limit: int = 1000, *, is_pending_only: bool = True) -> list[StoredDirect]:
        """Return messages of a user with numbers above ``after``, in order: those that are pending, or all.

        Maintenance alone decides by the clock that a message has expired; until then it is pending.
        """
        rows = self._connection.execute(
            f"{SELECT_DIRECT} WHERE user = ? AND direct_id > ?{' AND state = 0' if is_pending_only else ''}"
            " ORDER BY direct_id LIMIT ?",
            (user, after, limit),
        )
        return [self._direct(row) for row in rows]

    @reports_damage
    def pending_inbox(self, user: str) -> tuple[int, int] | None:
        """What of a user is pending: the number before the first one, and the last one; None = nothing."""
        row = self._connection.execute(
            f"SELECT min(direct_id) - 1, max(direct_id) {_PENDING} AND user = ?", (user,)
        ).fetchone()
        return None if row[0] is None else (int(row[0]), int(row[1]))

    @reports_damage
    def pending_inboxes(self, limit: int) -> list[tuple[str, int, int]]:
        """Return the users with pending messages, each with the two numbers of `pending_inbox`."""
        rows = self._connection.execute(
            "SELECT user, last_id, acked_id, inboxes.at_ms, inboxes.crc, min(direct_id) - 1, max(direct_id)"
            f" {_PENDING} GROUP BY user LIMIT ?",
            (limit,),
        )
        return [(str(self._inbox(row[:5])[0]), int(row[5]), int(row[6])) for row in rows]

    @reports_damage
    def direct(self, user: str, direct_id: int) -> StoredDirect | None:
        """One message, whatever its state, while it is kept."""
        rows = self._connection.execute(
            f"{SELECT_DIRECT} WHERE user = ? AND direct_id = ?", (user, direct_id)
        ).fetchall()
        return self._direct(rows[0]) if rows else None

    @reports_damage
    def direct_row(self, id: int) -> StoredDirect | None:
        """One message by the id of its row, whatever its state, while it is kept."""
        rows = self._connection.execute(f"{SELECT_DIRECT} WHERE id = ?", (id,)).fetchall()
        return self._direct(rows[0]) if rows else None

    @reports_damage
    def batch_progress(self, batch: str) -> dict[DirectState, int]:
        """How many messages of a batch are in each state."""
        # The second term is what the index is made for; without it the whole table is read.
        rows = self._connection.execute(
            "SELECT state, count(*) FROM directs WHERE batch = ? AND batch <> '' GROUP BY state", (batch,)
        )
        return {state: 0 for state in DirectState} | {DirectState(state): count for state, count in rows}

    @reports_damage
    def outbox_waiting(
        self, endpoint: str, after: int, limit: int, max_bytes: int, line: str | None = None
    ) -> tuple[list[StoredOutbox], bool]:
        """Return what waits for an endpoint (in one line of it) with ids above ``after``, in order, and whether that
        is all. Ends after the row with which the bodies exceed ``max_bytes``."""
        names = (endpoint,) if line is None else (endpoint, line)
        rows = self._connection.execute(
            f"{SELECT_OUTBOX} WHERE endpoint = ?{'' if line is None else ' AND line = ?'} AND id > ?"
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

    @reports_damage
    def outbox_page(self, endpoint: str | None, dead: bool, after: int, limit: int) -> list[StoredOutbox]:
        """Return rows with ids above ``after`` in order: dead letters, or what waits; ``endpoint`` None = of all."""
        where = "id > ? AND due_at_ms IS NULL" if dead else "id > ? AND due_at_ms IS NOT NULL"
        names: tuple[Any, ...] = (after,)
        if endpoint is not None:
            where, names = f"{where} AND endpoint = ?", (after, endpoint)
        rows = self._connection.execute(f"{SELECT_OUTBOX} WHERE {where} ORDER BY id LIMIT ?", (*names, limit))
        return [self._outbox(row) for row in rows]

    @reports_damage
    def outbox_rows(self, ids: Sequence[int]) -> list[StoredOutbox]:
        """Return the rows with these ids that there are, in order."""
        rows = self._connection.execute(
            f"{SELECT_OUTBOX} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", (json.dumps(list(ids)),)
        )
        return [self._outbox(row) for row in rows]

    @reports_damage
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
        return read_keys(self._connection, self.cipher, (digest,)).get(digest)

    # ---- records

    @reports_damage
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
            where, values = (
                f"{where} AND (name = ? OR instr({self.plain('body', 'records')}, ?) > 0)",
                (*values, text, text.encode()),
            )
        if after != ("", ""):
            where, values = f"{where} AND (subject, name) > (?, ?)", (*values, *after)
        rows = self._connection.execute(
            f"{SELECT_RECORD} WHERE {where} ORDER BY subject, name LIMIT ?", (*values, limit)
        )
        return [self._record(row) for row in rows]

    # ---- rows of a copy, see `broker.ledger.copying`

    @reports_damage
    def records_after(self, kind: str, after: tuple[str, ...], limit: int) -> list[StoredRecord]:
        """Return records of a kind behind a subject and name, () = from the first, ordered by them."""
        where, values = ("", ()) if not after else (" AND (subject, name) > (?, ?)", after)
        rows = self._connection.execute(
            f"{SELECT_RECORD} WHERE kind = ?{where} ORDER BY subject, name LIMIT ?", (kind, *values, limit)
        )
        return [self._record(row) for row in rows]

    @reports_damage
    def inboxes_after(self, user: str, limit: int) -> list[tuple[str, int, int, int]]:
        """Return user, last number, last acknowledged one and time of inboxes behind a user, "" = from the first."""
        rows = self._connection.execute(f"{SELECT_INBOX} WHERE user > ? ORDER BY user LIMIT ?", (user, limit))
        return [self._inbox(row)[:4] for row in rows]

    @reports_damage
    def inboxes_of(self, users: Sequence[str]) -> list[tuple[str, int, int, int]]:
        """Return the inboxes of some users, as `inboxes_after` does."""
        names = json.dumps(list(users))
        rows = self._connection.execute(f"{SELECT_INBOX} WHERE user IN (SELECT value FROM json_each(?))", (names,))
        return [self._inbox(row)[:4] for row in rows]

    @reports_damage
    def last_direct(self) -> int:
        """Return the id of the newest row of the messages, 0 = there is none."""
        return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM directs").fetchone()[0])

    @reports_damage
    def directs_after(self, id: int, last: int, limit: int) -> list[tuple[int, DirectRow]]:
        """Return messages of all users behind the id of a row, up to another one, in the order in which they were
        written, each with the id of its row."""
        where = "WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        rows = self._connection.execute(f"{_DIRECT_WITH_ID} {where}", (id, last, limit))
        return [(row[0], self._direct_row(row[1:])) for row in rows]

    @reports_damage
    def directs_of(self, user: str) -> list[DirectRow]:
        """Return all messages of a user, in order."""
        rows = self._connection.execute(f"{SELECT_DIRECT} WHERE user = ? ORDER BY direct_id", (user,))
        return [self._direct_row(row) for row in rows]

    def _direct_row(self, row: tuple[Any, ...]) -> DirectRow:
        self._check_direct(row)
        return (*row[:7], self.cipher.decrypt("directs", row[7]), row[8])

    # ---- the whole ledger

    @reports_damage
    def entries_with(self, text: str, after: int, limit: int, max_bytes: int) -> tuple[list[StoredEntry], int | None]:
        """Return events after entry ``after`` whose body contains ``text``, in order, and the last entry that was
        inspected, None = that is all. Ends after the event with which the bodies exceed ``max_bytes``.
        """
        row = self.head_row()
        after = max(after, row.anchor_seq)
        last = min(row.seq, after + SCAN_ENTRIES)
        found: list[StoredEntry] = []
        for each in self._connection.execute(
            f"{SELECT_ENTRY} WHERE e.seq > ? AND e.seq <= ? AND e.offset IS NOT NULL "
            f" AND instr({self.plain('e.body', 'entries')}, ?) > 0 ORDER BY e.seq LIMIT ?",
            (after, last, text.encode(), limit),
        ):
            found.append(self._entry(each))
            max_bytes -= len(found[-1].body)
            if max_bytes < 0 or len(found) == limit:
                return found, found[-1].seq if found[-1].seq < row.seq else None
        return found, last if last < row.seq else None


def stored_entries(reader: Reader, where: str, values: tuple[str | int | bytes, ...]) -> Iterator[StoredEntry]:
    """Yield the entries that a condition of SQL selects, of the tables ``e`` (entries) and ``s`` (their streams)."""
    for row in reader.connection.execute(f"{SELECT_ENTRY} WHERE {where}", values):
        yield reader._entry(row)


def open_directory(directory: Path, keys: LedgerKeys | None = None) -> Reader:
    """Open the ledger of a data directory and check it as the broker does at its start (`Reader.verify_tail`).

    ``keys``: what its bodies are encrypted with; verification needs none. LedgerRefused, LedgerDamaged, LedgerCut.
    """
    reader = Reader(database_path(directory), keys)
    try:
        reader.verify_tail(HeadFile.read(mark_path(directory)))
    except BaseException:
        reader.close()
        raise
    return reader
