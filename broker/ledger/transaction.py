"""One transaction on the ledger's file: what it has decided, to be kept if it commits and dropped if not.

Offsets, inbox numbers and sequence numbers are given here. Rows are gathered and written in chunks; every row that is
written or removed is counted in the tallies, which the head row seals at the end.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain as flatten
from typing import Any

from broker.core.tenants.names import shown_name
from broker.ledger.chain import SALT_BYTES, canonical, commitment, link
from broker.ledger.entries import (
    CANCEL_ROWS,
    AnswersRemoved,
    CallAnswered,
    Committed,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectsRemoved,
    DirectState,
    EntriesRedacted,
    Entry,
    Item,
    Key,
    KeyResult,
    LedgerDamaged,
    OutboxAgain,
    OutboxDone,
    OutboxEntry,
    OutboxLater,
    OutboxRedacted,
    RecordPut,
    RecordRemoved,
    Repeated,
    RoomCheckpointed,
    RoomEnded,
    RoomOpened,
    Submission,
)
from broker.ledger.redaction import redact_entries, redact_outbox, remove_answers
from broker.ledger.rows import (
    ACKED_MARK,
    CRC_MASK,
    HeadRow,
    Tallies,
    checkpoint_checksum,
    direct_checksum,
    inbox_checksum,
    key_checksum,
    outbox_checksum,
    record_checksum,
    state_mark,
    stream_checksum,
    write_head,
)

__all__ = ["StreamRow", "Transaction", "read_keys"]

_CHUNKS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one INSERT. Each step of a statement gives up the GIL, and in a busy broker it may take 5 ms to get it back;
so a batch should take few steps."""

INBOX_STEP = 1 << 32
"""Inbox numbers of one history: more than any user can get; a number holds 2^21 histories within 53 bits."""

_ENTRIES = "INSERT INTO entries (seq, stream, offset, lane, kind, at_ms, body, crc, hash, salt) VALUES "
_KEYS = "INSERT INTO keys (digest, fingerprint, outcome, offset, answer, at_ms, crc) VALUES "
_STREAMS = (
    "INSERT OR REPLACE INTO streams (stream, room, epoch, last_offset, opened_at_ms, used_at_ms, ended_at_ms, crc)"
    " VALUES "
)
_CHECKPOINTS = "INSERT OR REPLACE INTO checkpoints (stream, at_ms, totals, crc) VALUES "
_INBOXES = "INSERT OR REPLACE INTO inboxes (user, last_id, acked_id, at_ms, crc) VALUES "
_DIRECTS = "INSERT INTO directs (user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, crc) VALUES "
_CANCEL = (
    f"UPDATE directs SET state = {DirectState.CANCELLED:d},"
    f" crc = (crc + {state_mark(DirectState.CANCELLED)}) & {CRC_MASK} WHERE "
)
_OF_BATCH = (
    f"id IN (SELECT id FROM directs WHERE batch = ? AND batch <> '' AND state = 0 ORDER BY id LIMIT {CANCEL_ROWS})"
)
_OF_USER = "user = ? AND direct_id = ? AND state = 0"
_OUTBOX = "INSERT INTO outbox (endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body, crc) VALUES "
_OUTBOX_ROW = "endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body, crc"
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


class _Inbox:
    """A row of inboxes; ``crc`` as in `StreamRow`."""

    __slots__ = ("acked_id", "at_ms", "crc", "last_id")

    def __init__(self, last_id: int, acked_id: int, at_ms: int, crc: int | None) -> None:
        self.last_id = last_id
        self.acked_id = acked_id
        self.at_ms = at_ms
        self.crc = crc


class Transaction:
    """What one transaction does. ``streams``: known rows, which are copied before they are changed."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        head: HeadRow,
        known: Mapping[tuple[str, int], StreamRow],
        next_stream: int,
    ) -> None:
        self.connection = connection
        self.tallies = Tallies.load(head.tallies)
        self.next_stream = next_stream
        self.streams: dict[tuple[str, int], StreamRow] = {}
        """Streams that it has changed."""
        self.removed_streams: list[tuple[str, int]] = []
        self.has_changed = False
        """Whether maintenance has done anything; else it is rolled back."""
        self._head = head
        self._known = known
        self._seq = head.seq
        self._hash = head.hash
        self._anchor = head.anchor
        self._first_results: dict[bytes, KeyResult] = {}
        self._inboxes: dict[str, _Inbox] = {}
        # Rows as the INSERT statements above take them.
        self._entries: list[tuple[Any, ...]] = []
        self._keys: list[tuple[Any, ...]] = []
        self._directs: list[tuple[Any, ...]] = []
        self._outbox: list[tuple[Any, ...]] = []
        self._checkpoints: dict[int, tuple[Any, ...]] = {}

    # ---- submissions

    def stage(self, submission: Submission, known: Mapping[bytes, KeyResult]) -> Committed | Repeated:
        """Take one submission in; ``known``: first results of keys that are in the file."""
        keys = submission.keys
        if keys:
            repeated: dict[bytes, KeyResult] = {}
            for key in keys:
                first = self._first_results.get(key[0]) or known.get(key[0])
                if first is not None:
                    repeated[key[0]] = first
            if repeated:
                reused = [key[0] for key in keys if key[0] in repeated and repeated[key[0]].fingerprint != key[1]]
                return Repeated(repeated, frozenset(reused))
        offsets: list[int] = []
        direct_ids: list[int] = []
        cancelled: list[tuple[str, int]] = []
        for item in submission.items:
            if type(item) is Entry:
                offset = self._stage_entry(item)
                if offset:
                    offsets.append(offset)
            elif type(item) is DirectEntry:
                direct_ids.append(self._stage_direct(item))
            elif type(item) is DirectsCancelled:
                cancelled += self._cancel_directs(item)
            elif type(item) is OutboxEntry:
                self.add_outbox(item, next(iter(offsets or direct_ids), 0))
            else:
                self._stage_other(item)
        if keys:
            at_ms = next((at_ms for item in submission.items if (at_ms := getattr(item, "at_ms", 0))), 0)
            number = next(iter(offsets or direct_ids), 0)
            for key in keys:
                self._stage_key(key, number, at_ms)
        return Committed(tuple(offsets), tuple(direct_ids), tuple(cancelled))

    def _stage_entry(self, item: Entry) -> int:
        room, epoch, lane, kind, at_ms, body = item
        stream = self.streams.get((room, epoch)) or self.open_stream(room, epoch, at_ms)
        stream.used_at_ms = at_ms
        offset = 0
        if lane is not None:
            offset = stream.last_offset = stream.last_offset + 1
        seq = self._seq = self._seq + 1
        data = canonical(seq, room, epoch, offset, lane, kind, at_ms)
        salt = os.urandom(SALT_BYTES)
        hashed = self._hash = link(self._hash, data, commitment(salt, body))
        crc = zlib.crc32(body, zlib.crc32(data))
        self._entries.append((seq, stream.id, offset or None, lane, kind, at_ms, body, crc, hashed, salt))
        return offset

    def _stage_direct(self, item: DirectEntry) -> int:
        user, kind, at_ms, expires_at_ms, body, batch = item
        inbox = self._inbox(user)
        if inbox is None:
            inbox = self._inboxes[user] = _Inbox(self._head.inbox_base, 0, at_ms, None)
        direct_id = inbox.last_id = inbox.last_id + 1
        inbox.at_ms = at_ms
        crc = direct_checksum(user, direct_id, kind, at_ms, expires_at_ms, DirectState.PENDING, batch, body)
        self.tallies.add_direct(crc, DirectState.PENDING)
        self._directs.append((user, direct_id, kind, at_ms, expires_at_ms, 0, batch, body, crc))
        return direct_id

    def _stage_key(self, key: Key, offset: int, at_ms: int) -> None:
        digest, fingerprint, outcome, answer = key
        if digest in self._first_results:
            return  # named twice in one submission
        self._first_results[digest] = KeyResult(outcome, offset, answer, fingerprint)
        crc = key_checksum(digest, fingerprint, outcome, offset, answer, at_ms)
        self.tallies["keys"].add(crc)
        self._keys.append((digest, fingerprint, outcome, offset, answer, at_ms, crc))

    def _stage_other(self, item: Item) -> None:
        match item:
            case DirectAcked(user, direct_id, at_ms):
                self._acknowledge(user, direct_id, at_ms)
            case OutboxDone(ids):
                for each in ids:
                    self._remove_outbox(each)
            case OutboxLater():
                self._delay_outbox(item)
            case OutboxAgain(ids, at_ms):
                for each in ids:
                    self._renew_outbox(each, at_ms)
            case RecordPut(kind, subject, name, at_ms, body):
                self.put_record(kind, subject, name, at_ms, body)
            case RecordRemoved(kind, subject, name):
                self.remove_record(kind, subject, name)
            case RoomOpened(room, epoch, at_ms):
                self.open_stream(room, epoch, at_ms).used_at_ms = at_ms
            case RoomCheckpointed(room, epoch, at_ms, totals):
                stream = self.open_stream(room, epoch, at_ms)
                stream.used_at_ms = at_ms
                self.set_checkpoint(stream, at_ms, totals)
            case RoomEnded(room, epoch, at_ms):
                # One that was never written needs no end; to open it now would end the stream that followed it.
                ended = self._find_stream(room, epoch)
                if ended is not None:
                    self.end_stream(ended, at_ms)
            case CallAnswered():
                pass
            case EntriesRedacted():
                self._stage_entry(redact_entries(self.connection, item))
            case OutboxRedacted(bodies):
                redact_outbox(self.connection, self.tallies["outbox"], bodies)
            case AnswersRemoved(digests):
                remove_answers(self.connection, self.tallies["keys"], digests)
            case DirectsRemoved(user):
                self._remove_directs(user)
            case _:
                raise TypeError(f"not an item of the ledger: {item!r}")

    # ---- streams

    def open_stream(self, room: str, epoch: int, at_ms: int) -> StreamRow:
        """Return the stream of a room in an epoch, to be changed here; a new one ends all others of the room."""
        stream = self._find_stream(room, epoch)
        if stream is not None:
            return stream
        self.find_streams("s.room = ? AND s.ended_at_ms IS NULL", (room,))
        for other in self.streams.values():
            if other.room == room and other.ended_at_ms is None:
                self.end_stream(other, at_ms)
        stream = self.streams[room, epoch] = StreamRow(self.next_stream, room, epoch, 0, at_ms, at_ms)
        self.next_stream += 1
        return stream

    def _find_stream(self, room: str, epoch: int) -> StreamRow | None:
        """Return the stream of a room in an epoch, to be changed here; None where there is none."""
        stream = self.streams.get((room, epoch))
        if stream is not None:
            return stream
        known = self._known.get((room, epoch))
        if known is not None:
            stream = self.streams[room, epoch] = known.copy()
            return stream
        found = self.find_streams("s.room = ? AND s.epoch = ?", (room, epoch))
        return found[0] if found else None

    def find_streams(self, where: str, parameters: tuple[Any, ...]) -> list[StreamRow]:
        """Return the streams of the file that match, to be changed here. LedgerDamaged where one is not as written."""
        found = []
        for row in self.connection.execute(f"{_SELECT_STREAM} WHERE {where}", parameters).fetchall():
            room, epoch = row[1], row[2]
            if row[7] != stream_checksum(*row[:7]):
                raise LedgerDamaged(f"stream {epoch} of room {shown_name(room)} is not what was written (checksum)")
            stream = self.streams.get((room, epoch))
            if stream is None:
                stream = self.streams[room, epoch] = StreamRow(*row)
            found.append(stream)
        return found

    def set_checkpoint(self, stream: StreamRow, at_ms: int, totals: bytes) -> None:
        """Write the checkpoint of a stream over its last one."""
        crc = checkpoint_checksum(stream.id, at_ms, totals)
        self.tallies["checkpoints"].replace(stream.checkpoint_crc, crc)
        stream.checkpoint_crc = crc
        self._checkpoints[stream.id] = stream.id, at_ms, totals, crc

    def end_stream(self, stream: StreamRow, at_ms: int) -> None:
        """End a stream; its checkpoint goes."""
        stream.ended_at_ms = at_ms
        if stream.checkpoint_crc is not None:
            self.tallies["checkpoints"].remove(stream.checkpoint_crc)
            stream.checkpoint_crc = None
            self._checkpoints.pop(stream.id, None)
            self.connection.execute("DELETE FROM checkpoints WHERE stream = ?", (stream.id,))

    def remove_streams(self, where: str, parameters: tuple[Any, ...]) -> int:
        """Delete ended streams; return how many."""
        rows = self.connection.execute(
            f"DELETE FROM streams WHERE stream IN (SELECT stream FROM streams AS s WHERE {where})"
            " RETURNING room, epoch, crc",
            parameters,
        ).fetchall()
        for room, epoch, crc in rows:
            self.tallies["streams"].remove(crc)
            self.removed_streams.append((room, epoch))
        return len(rows)

    def begin_lineage(self, lineage: bytes, new_epoch: Callable[[], int], at_ms: int) -> int:
        """Begin another history: every open room gets a stream of a new epoch, with its checkpoint, and inbox numbers
        continue above any that may have been given out. Return the number of rooms."""
        rooms = self.find_streams("s.ended_at_ms IS NULL AND s.room <> ''", ())
        for stream in rooms:
            checkpoint = self.connection.execute(
                "SELECT at_ms, totals FROM checkpoints WHERE stream = ?", (stream.id,)
            ).fetchone()
            self.end_stream(stream, at_ms)
            fresh = StreamRow(self.next_stream, stream.room, new_epoch(), 0, at_ms, stream.used_at_ms)
            self.next_stream += 1
            self.streams[fresh.room, fresh.epoch] = fresh
            if checkpoint is not None:
                self.set_checkpoint(fresh, *checkpoint)
        for (user,) in self.connection.execute("SELECT user FROM inboxes").fetchall():
            self._inbox(user)
        last_id = max([self._head.inbox_base, *(inbox.last_id for inbox in self._inboxes.values())])
        base = (last_id // INBOX_STEP + 1) * INBOX_STEP
        for inbox in self._inboxes.values():
            inbox.last_id = base
        self._head = self._head._replace(lineage=lineage, is_copy=0, inbox_base=base)
        return len(rooms)

    # ---- inboxes and outbox

    def _inbox(self, user: str) -> _Inbox | None:
        inbox = self._inboxes.get(user)
        if inbox is None:
            row = self.connection.execute(
                "SELECT last_id, acked_id, at_ms, crc FROM inboxes WHERE user = ?", (user,)
            ).fetchone()
            if row is None:
                return None
            if row[3] != inbox_checksum(user, *row[:3]):
                raise LedgerDamaged(f"the inbox of {user} is not what was written (checksum)")
            inbox = self._inboxes[user] = _Inbox(*row)
        return inbox

    def _acknowledge(self, user: str, direct_id: int, at_ms: int) -> None:
        inbox = self._inbox(user)
        if inbox is None:
            return
        self._write_directs()
        acked = self.connection.execute(
            f"UPDATE directs SET state = 1, crc = (crc + {ACKED_MARK}) & {CRC_MASK}"
            " WHERE user = ? AND direct_id <= ? AND state = 0",
            (user, direct_id),
        ).rowcount
        self.tallies.move_directs(acked, DirectState.PENDING, DirectState.ACKED)
        if inbox.acked_id < direct_id:
            inbox.acked_id = min(direct_id, inbox.last_id)
            inbox.at_ms = at_ms

    def _cancel_directs(self, item: DirectsCancelled) -> list[tuple[str, int]]:
        """Cancel pending messages; return user and number of each, sorted."""
        self._write_directs()
        where, names = (_OF_BATCH, (item.batch,)) if item.batch else (_OF_USER, (item.user, item.direct_id))
        rows = self.connection.execute(f"{_CANCEL}{where} RETURNING user, direct_id", names).fetchall()
        self.tallies.move_directs(len(rows), DirectState.PENDING, DirectState.CANCELLED)
        return sorted(rows)

    def _remove_directs(self, user: str) -> None:
        """Delete messages of a user, and its inbox with the last of them; no later message gets a number of these."""
        self._write_directs()
        rows = self.connection.execute(
            "DELETE FROM directs WHERE id IN (SELECT id FROM directs WHERE user = ? LIMIT ?) RETURNING crc, state",
            (user, CANCEL_ROWS),
        ).fetchall()
        self.tallies.remove_directs(rows)
        inbox = self._inbox(user) if len(rows) < CANCEL_ROWS else None
        if inbox is not None:
            del self._inboxes[user]
            if inbox.crc is not None:
                self.tallies["inboxes"].remove(inbox.crc)
                self.connection.execute("DELETE FROM inboxes WHERE user = ?", (user,))
            self._head = self._head._replace(inbox_base=max(self._head.inbox_base, inbox.last_id))

    def add_outbox(self, entry: OutboxEntry, number: int = 0) -> None:
        """Add a row to the outbox, due at once."""
        topic, at_ms, body, endpoint, line = entry
        crc = outbox_checksum(endpoint, line, topic, number, at_ms, at_ms, 0, "", body)
        self.tallies["outbox"].add(crc)
        self._outbox.append((endpoint, line, topic, number, at_ms, at_ms, 0, "", body, crc))

    def _remove_outbox(self, each: int) -> None:
        self._write_outbox()
        rows = self.connection.execute("DELETE FROM outbox WHERE id = ? RETURNING crc", (each,)).fetchall()
        for (crc,) in rows:
            self.tallies["outbox"].remove(crc)

    def _delay_outbox(self, later: OutboxLater) -> None:
        self._write_outbox()
        each, attempts, due_at_ms, reason = later
        row = self.connection.execute(f"SELECT {_OUTBOX_ROW} FROM outbox WHERE id = ?", (each,)).fetchone()
        if row is not None:
            endpoint, line, topic, number, at_ms, _, _, _, body, before = row
            crc = outbox_checksum(endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body)
            self.tallies["outbox"].replace(before, crc)
            self.connection.execute(
                "UPDATE outbox SET attempts = ?, due_at_ms = ?, reason = ?, crc = ? WHERE id = ?",
                (attempts, due_at_ms, reason, crc, each),
            )

    def _renew_outbox(self, each: int, at_ms: int) -> None:
        self._write_outbox()
        row = self.connection.execute(
            "SELECT topic, body, endpoint, line, number FROM outbox WHERE id = ? AND due_at_ms IS NULL", (each,)
        ).fetchone()
        if row is not None:
            topic, body, endpoint, line, number = row
            self._remove_outbox(each)
            self.add_outbox(OutboxEntry(topic, at_ms, body, endpoint, line), number)

    # ---- records

    def put_record(self, kind: str, subject: str, name: str, at_ms: int, body: bytes) -> None:
        """Write a record over the one under its names."""
        self.remove_record(kind, subject, name)
        crc = record_checksum(kind, subject, name, at_ms, body)
        self.tallies["records"].add(crc)
        self.connection.execute(
            "INSERT INTO records (kind, subject, name, at_ms, body, crc) VALUES (?, ?, ?, ?, ?, ?)",
            (kind, subject, name, at_ms, body, crc),
        )

    def remove_record(self, kind: str, subject: str, name: str) -> None:
        """Delete the record under these names, where there is one."""
        rows = self.connection.execute(
            "DELETE FROM records WHERE kind = ? AND subject = ? AND name = ? RETURNING crc", (kind, subject, name)
        ).fetchall()
        for (crc,) in rows:
            self.tallies["records"].remove(crc)

    # ---- the end

    def set_anchor(self, seq: int, hashed: bytes) -> None:
        """Set the link that the first remaining entry follows."""
        self._anchor = seq, hashed

    def write(self) -> HeadRow:
        """Write everything that was gathered, and the head; return it."""
        self._write_streams()
        self._insert(_ENTRIES, self._entries)
        self._insert(_KEYS, self._keys)
        self._insert(_CHECKPOINTS, list(self._checkpoints.values()))
        self._write_inboxes()
        self._write_directs()
        self._write_outbox()
        head = self._head._replace(
            batch=self._head.batch + 1,
            seq=self._seq,
            hash=self._hash,
            anchor_seq=self._anchor[0],
            anchor_hash=self._anchor[1],
            tallies=self.tallies.dump(),
        )
        write_head(self.connection, head)
        return head

    def _write_streams(self) -> None:
        tally = self.tallies["streams"]
        rows = []
        for stream in self.streams.values():
            columns = stream.columns()
            crc = stream_checksum(*columns)
            if crc != stream.crc:
                tally.replace(stream.crc, crc)
                stream.crc = crc
                rows.append((*columns, crc))
        self._insert(_STREAMS, rows)

    def _write_inboxes(self) -> None:
        tally = self.tallies["inboxes"]
        rows = []
        for user, inbox in self._inboxes.items():
            columns = inbox.last_id, inbox.acked_id, inbox.at_ms
            crc = inbox_checksum(user, *columns)
            if crc != inbox.crc:
                tally.replace(inbox.crc, crc)
                rows.append((user, *columns, crc))
        self._insert(_INBOXES, rows)

    def _write_directs(self) -> None:
        self._insert(_DIRECTS, self._directs)
        self._directs = []

    def _write_outbox(self) -> None:
        self._insert(_OUTBOX, self._outbox)
        self._outbox = []

    def _insert(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        position = 0
        for size in _CHUNKS:
            while len(rows) - position >= size:
                values = _values(len(rows[0]), size)
                chunk = rows[position : position + size]
                self.connection.execute(statement + values, tuple(flatten.from_iterable(chunk)))
                position += size


def read_keys(connection: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, KeyResult]:
    """Return the first results of those keys that are known. LedgerDamaged where a row is not what was written."""
    found: dict[bytes, KeyResult] = {}
    position = 0
    for size in _CHUNKS:
        while len(digests) - position >= size:
            columns = "digest, fingerprint, outcome, offset, answer, at_ms, crc"
            sql = f"SELECT {columns} FROM keys WHERE digest IN {_values(size, 1)}"
            for row in connection.execute(sql, tuple(digests[position : position + size])):
                digest, fingerprint, outcome, offset, answer, _, crc = row
                if key_checksum(*row[:6]) != crc:
                    raise LedgerDamaged(f"key {digest.hex()} is not what was written (checksum)")
                found[digest] = KeyResult(outcome, offset, answer, fingerprint)
            position += size
    return found


@lru_cache(maxsize=64)
def _values(width: int, rows: int) -> str:
    return ", ".join(["(" + ", ".join("?" * width) + ")"] * rows)
