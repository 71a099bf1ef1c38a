"""The ledger's file as one thread writes it: a batch of submissions in, one transaction, their results out.

Offsets, inbox numbers and sequence numbers are given here, inside the transaction. So a batch that fails takes nothing
with it: no offset is lost, no hole is left, and a repeated key is found before anything of its submission is
written.

After an error the transaction is rolled back and the store says so; what it may be used for next is the writer's
decision (`verify_tail` and `probe`). It must never report `Committed` before SQLite's COMMIT has returned, and with it
the fsync.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain as flatten
from pathlib import Path
from typing import Any

from broker.ledger.chain import canonical, checksum, link
from broker.ledger.entries import (
    Committed,
    DirectAcked,
    DirectEntry,
    Entry,
    Item,
    Key,
    KeyResult,
    LedgerDamaged,
    OutboxDone,
    OutboxEntry,
    OutboxLater,
    Repeated,
    RoomCheckpointed,
    RoomEnded,
    RoomOpened,
    Submission,
)
from broker.ledger.head import Head
from broker.ledger.schema import connect, migrate

__all__ = ["OUTBOX", "Store", "key_checksum", "outbox_row", "read_keys"]

_CHUNKS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one INSERT. Each step of a statement gives up the GIL, and in a busy broker it may take 5 ms to get it back;
so a batch should take few steps."""
MAX_KNOWN_STREAMS = 20_000
"""Streams whose end is kept in memory; others are read when they are needed."""

_ENTRIES = "INSERT INTO entries (seq, stream, offset, lane, kind, at_ms, body, crc, hash) VALUES "
_KEYS = "INSERT INTO keys (digest, fingerprint, outcome, offset, answer, at_ms, crc) VALUES "
_STREAMS = "INSERT INTO streams (stream, room, epoch, last_offset, opened_at_ms, used_at_ms) VALUES "
_STREAMS_AGAIN = (
    " ON CONFLICT (stream) DO UPDATE SET last_offset = excluded.last_offset, used_at_ms = excluded.used_at_ms"
)
_DIRECTS = "INSERT INTO directs (user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, crc) VALUES "
OUTBOX = "INSERT INTO outbox (topic, at_ms, due_at_ms, attempts, body, crc) VALUES "


def outbox_row(topic: str, at_ms: int, body: bytes) -> tuple[Any, ...]:
    """Return the row of a new outbox entry, due at once, in the order of the columns of `OUTBOX`."""
    return topic, at_ms, at_ms, 0, body, checksum(topic, at_ms, body)


class _Stream:
    """One room's stream and where it ends."""

    __slots__ = ("epoch", "id", "last_offset", "opened_at_ms", "room", "used_at_ms")

    def __init__(self, id: int, room: str, epoch: int, last_offset: int, opened_at_ms: int, used_at_ms: int) -> None:
        self.id = id
        self.room = room
        self.epoch = epoch
        self.last_offset = last_offset
        self.opened_at_ms = opened_at_ms
        self.used_at_ms = used_at_ms

    def row(self) -> tuple[int | str, ...]:
        """As it is written."""
        return self.id, self.room, self.epoch, self.last_offset, self.opened_at_ms, self.used_at_ms


class _Draft:
    """What a transaction under way has decided, to be kept if it commits and forgotten if not."""

    __slots__ = ("directs", "entries", "hash", "keys", "next_stream", "outbox", "seq", "staged", "streams")

    def __init__(self, head: Head, next_stream: int) -> None:
        self.seq = head.seq
        self.hash = head.hash
        self.next_stream = next_stream
        self.streams: dict[tuple[str, int], _Stream] = {}
        self.staged: dict[bytes, KeyResult] = {}
        # Rows as the INSERT statements above take them.
        self.entries: list[tuple[Any, ...]] = []
        self.keys: list[tuple[Any, ...]] = []
        self.directs: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[Any, ...]] = []


class Store:
    """The writing side of the file at ``path``. Used by one thread at a time; every method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = connect(path)
        try:
            self.migrated_from = migrate(self._connection, path)
            self.head = self._read_head()
            self._next_stream = 1 + self._one("SELECT coalesce(max(stream), 0) FROM streams")
        except BaseException:
            self._connection.close()
            raise
        self._streams: dict[tuple[str, int], _Stream] = {}

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for maintenance between two batches."""
        return self._connection

    def commit(self, batch: Sequence[Submission]) -> list[Committed | Repeated]:
        """Make a batch durable, in order; the results are those of its submissions, one each.

        sqlite3.Error: nothing of the batch is in the file, and nothing of it counts.
        """
        begin, execute = "BEGIN IMMEDIATE", self._connection.execute
        execute(begin)
        try:
            draft = _Draft(self.head, self._next_stream)
            known = read_keys(self._connection, [key.digest for submission in batch for key in submission.keys])
            results = [self._stage(draft, submission, known) for submission in batch]
            head = Head(self.head.batch + 1, draft.seq, draft.hash)
            self._write(draft, head)
            self._finish()
        except BaseException:
            self._roll_back()
            raise
        self.head = head
        self._next_stream = draft.next_stream
        if len(self._streams) + len(draft.streams) > MAX_KNOWN_STREAMS:
            self._streams.clear()
        self._streams.update(draft.streams)
        return results

    def _finish(self) -> None:
        """Commit: returns after the fsync. (Tests put a disk's faults here.)"""
        self._connection.execute("COMMIT")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # the same disk again; SQLite has rolled back by itself, or will when it recovers

    def newest_ms(self) -> int:
        """Return the newest time that is written here, Unix milliseconds; 0 = none."""
        row = self._connection.execute(
            "SELECT max(coalesce((SELECT at_ms FROM entries ORDER BY seq DESC LIMIT 1), 0),"
            " coalesce((SELECT max(used_at_ms) FROM streams), 0), coalesce((SELECT max(at_ms) FROM inboxes), 0))"
        ).fetchone()
        return int(row[0])

    # ---- staging

    def _stage(self, draft: _Draft, submission: Submission, known: dict[bytes, KeyResult]) -> Committed | Repeated:
        keys = submission.keys
        if keys:
            repeated: dict[bytes, KeyResult] = {}
            for key in keys:
                first = draft.staged.get(key[0]) or known.get(key[0])
                if first is not None:
                    repeated[key[0]] = first
            if repeated:
                reused = [key[0] for key in keys if key[0] in repeated and repeated[key[0]].fingerprint != key[1]]
                return Repeated(repeated, frozenset(reused))
        offsets: list[int] = []
        direct_ids: list[int] = []
        for item in submission.items:
            if type(item) is Entry:
                offset = self._stage_entry(draft, item)
                if offset:
                    offsets.append(offset)
            elif type(item) is DirectEntry:
                direct_ids.append(self._stage_direct(draft, item))
            else:
                self._stage_other(draft, item)
        if keys:
            at_ms = next((at_ms for item in submission.items if (at_ms := getattr(item, "at_ms", 0))), 0)
            for key in keys:
                self._stage_key(draft, key, offsets[0] if offsets else 0, at_ms)
        return Committed(tuple(offsets), tuple(direct_ids))

    def _stage_entry(self, draft: _Draft, item: Entry) -> int:
        room, epoch, lane, kind, at_ms, body = item
        stream = draft.streams.get((room, epoch)) or self._stream(draft, room, epoch, at_ms)
        stream.used_at_ms = at_ms
        offset = 0
        if lane is not None:
            offset = stream.last_offset = stream.last_offset + 1
        seq = draft.seq = draft.seq + 1
        data = canonical(seq, room, epoch, offset, lane, kind, at_ms, body)
        hashed = draft.hash = link(draft.hash, data)
        draft.entries.append((seq, stream.id, offset or None, lane, kind, at_ms, body, zlib.crc32(data), hashed))
        return offset

    def _stage_direct(self, draft: _Draft, item: DirectEntry) -> int:
        user, kind, at_ms, expires_at_ms, body, batch = item
        direct_id: int = self._connection.execute(
            "INSERT INTO inboxes (user, last_id, acked_id, at_ms) VALUES (?, 1, 0, ?)"
            " ON CONFLICT (user) DO UPDATE SET last_id = last_id + 1, at_ms = excluded.at_ms RETURNING last_id",
            (user, at_ms),
        ).fetchone()[0]
        crc = checksum(user, direct_id, kind, at_ms, expires_at_ms, body)
        draft.directs.append((user, direct_id, kind, at_ms, expires_at_ms, 0, batch, body, crc))
        return direct_id

    def _stage_key(self, draft: _Draft, key: Key, offset: int, at_ms: int) -> None:
        digest, fingerprint, outcome, answer = key
        if digest in draft.staged:
            return  # named twice in one submission
        draft.staged[digest] = KeyResult(outcome, offset, answer, fingerprint)
        crc = key_checksum(digest, fingerprint, outcome, offset, answer)
        draft.keys.append((digest, fingerprint, outcome, offset, answer, at_ms, crc))

    def _stage_other(self, draft: _Draft, item: Item) -> None:
        execute = self._connection.execute
        match item:
            case OutboxEntry(topic, at_ms, body):
                draft.outbox.append(outbox_row(topic, at_ms, body))
            case DirectAcked(user, direct_id, at_ms):
                self._insert(_DIRECTS, draft.directs)
                draft.directs = []
                execute(
                    "UPDATE directs SET state = 1 WHERE user = ? AND direct_id <= ? AND state = 0", (user, direct_id)
                )
                execute(
                    "UPDATE inboxes SET acked_id = min(?, last_id), at_ms = ? WHERE user = ? AND acked_id < ?",
                    (direct_id, at_ms, user, direct_id),
                )
            case OutboxDone(ids):
                self._insert(OUTBOX, draft.outbox)
                draft.outbox = []
                for each in ids:
                    execute("DELETE FROM outbox WHERE id = ?", (each,))
            case OutboxLater(each, attempts, due_at_ms):
                self._insert(OUTBOX, draft.outbox)
                draft.outbox = []
                execute("UPDATE outbox SET attempts = ?, due_at_ms = ? WHERE id = ?", (attempts, due_at_ms, each))
            case RoomOpened(room, epoch, at_ms):
                self._stream(draft, room, epoch, at_ms).used_at_ms = at_ms
            case RoomCheckpointed(room, epoch, at_ms, note):
                stream = self._stream(draft, room, epoch, at_ms)
                stream.used_at_ms = at_ms
                execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", (stream.id, at_ms, note, checksum(note)))
            case RoomEnded(room, epoch, at_ms):
                stream = self._stream(draft, room, epoch, at_ms)
                self._write_streams(draft)
                execute("UPDATE streams SET ended_at_ms = ? WHERE stream = ?", (at_ms, stream.id))
                execute("DELETE FROM notes WHERE stream = ?", (stream.id,))
            case _:
                raise TypeError(f"not an item of the ledger: {item!r}")

    def _stream(self, draft: _Draft, room: str, epoch: int, at_ms: int) -> _Stream:
        """The stream of a room in an epoch, to be changed in this draft; a new one ends all others of the room."""
        stream = draft.streams.get((room, epoch))
        if stream is not None:
            return stream
        known = self._streams.get((room, epoch))
        row = None if known is None else known.row()
        if row is None:
            row = self._connection.execute(
                "SELECT stream, room, epoch, last_offset, opened_at_ms, used_at_ms FROM streams"
                " WHERE room = ? AND epoch = ?",
                (room, epoch),
            ).fetchone()
        if row is None:
            self._write_streams(draft)
            self._connection.execute(
                "UPDATE streams SET ended_at_ms = ? WHERE room = ? AND ended_at_ms IS NULL", (at_ms, room)
            )
            row = draft.next_stream, room, epoch, 0, at_ms, at_ms
            draft.next_stream += 1
        stream = draft.streams[room, epoch] = _Stream(*row)
        return stream

    # ---- writing

    def _write(self, draft: _Draft, head: Head) -> None:
        self._write_streams(draft)
        self._insert(_ENTRIES, draft.entries)
        self._insert(_KEYS, draft.keys)
        self._insert(_DIRECTS, draft.directs)
        self._insert(OUTBOX, draft.outbox)
        self._connection.execute("UPDATE head SET batch = ?, seq = ?, hash = ?", head)

    def _write_streams(self, draft: _Draft) -> None:
        self._insert(_STREAMS, [stream.row() for stream in draft.streams.values()], _STREAMS_AGAIN)

    def _insert(self, statement: str, rows: Sequence[tuple[Any, ...]], suffix: str = "") -> None:
        position = 0
        for size in _CHUNKS:
            while len(rows) - position >= size:
                values = _values(len(rows[0]), size)
                chunk = rows[position : position + size]
                self._connection.execute(statement + values + suffix, tuple(flatten.from_iterable(chunk)))
                position += size

    # ---- trust

    def verify_tail(self) -> None:
        """After an error: check that the file still ends where it did. LedgerDamaged if not."""
        head = self._read_head()
        if head != self.head:
            raise LedgerDamaged(
                f"{self.path}: ends at commit {head.batch}, entry {head.seq}; "
                f"acknowledged were commit {self.head.batch}, entry {self.head.seq}"
            )
        if head.seq:
            row = self._connection.execute("SELECT hash FROM entries WHERE seq = ?", (head.seq,)).fetchone()
            if row is not None and row[0] != head.hash:
                raise LedgerDamaged(f"{self.path}: the last entry is not the one that was acknowledged")

    def probe(self) -> None:
        """Write and sync a commit that says nothing, over whatever a failed one has left in the log."""
        self.commit(())

    def _read_head(self) -> Head:
        row = self._connection.execute("SELECT batch, seq, hash FROM head").fetchone()
        if row is None:
            raise LedgerDamaged(f"{self.path}: has no head")
        return Head(*row)

    def _one(self, sql: str) -> int:
        value: int = self._connection.execute(sql).fetchone()[0]
        return value

    def close(self) -> None:
        """Close the file; SQLite then moves what is left of its log into the database."""
        self._connection.close()


def key_checksum(digest: bytes, fingerprint: bytes, outcome: int, offset: int, answer: bytes) -> int:
    """CRC-32 of a row of keys; one call, because every gift needs it."""
    return zlib.crc32(b"%b%b%d %d %b" % (digest, fingerprint, outcome, offset, answer))


def read_keys(connection: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, KeyResult]:
    """The first results of those keys that are known. LedgerDamaged where a row is not what was written."""
    found: dict[bytes, KeyResult] = {}
    position = 0
    for size in _CHUNKS:
        while len(digests) - position >= size:
            columns = "digest, fingerprint, outcome, offset, answer, crc"
            sql = f"SELECT {columns} FROM keys WHERE digest IN {_values(size, 1)}"
            for row in connection.execute(sql, tuple(digests[position : position + size])):
                digest, fingerprint, outcome, offset, answer, crc = row
                if key_checksum(digest, fingerprint, outcome, offset, answer) != crc:
                    raise LedgerDamaged(f"key {digest.hex()} is not what was written (checksum)")
                found[digest] = KeyResult(outcome, offset, answer, fingerprint)
            position += size
    return found


@lru_cache(maxsize=64)
def _values(width: int, rows: int) -> str:
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * rows)
