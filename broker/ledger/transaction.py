"""One transaction on the ledger's file: what it has decided, to be kept if it commits and dropped if not.

Offsets, inbox numbers and sequence numbers are given here. Rows are gathered and written in chunks; every row that is
written or removed is counted in the tallies, which the head row seals at the end.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from broker.core.users.marketing import MarketingRules
from broker.ledger.chain import Salts, canonical
from broker.ledger.encryption import BodyCipher
from broker.ledger.entries import (
    READ_WITHOUT_KEY,
    AnswersRemoved,
    BatchRedacted,
    CallAnswered,
    Committed,
    CopyCleared,
    CopyFilled,
    DirectAcked,
    DirectEntry,
    DirectsCancelled,
    DirectsRedacted,
    DirectsRemoved,
    EntriesRedacted,
    Entry,
    Item,
    Key,
    KeyResult,
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
    RoomForgotten,
    RoomOpened,
    Submission,
)
from broker.ledger.inbox_rows import InboxRows
from broker.ledger.inserting import insert_rows
from broker.ledger.key_rows import read_keys
from broker.ledger.outbox_rows import OutboxRows
from broker.ledger.redaction import redact_entries, redact_outbox, remove_answers
from broker.ledger.rows import HeadRow, Tallies, key_checksum, record_checksum, write_head
from broker.ledger.stream_rows import StreamRow, StreamRows

__all__ = ["Transaction"]

_ENTRIES = "INSERT INTO entries (seq, stream, offset, lane, kind, at_ms, body, crc, hash, salt)"
_KEYS = "INSERT INTO keys (digest, fingerprint, outcome, offset, answer, at_ms, crc)"


class Transaction:
    """What one transaction does. ``cipher`` encrypts bodies; ``known``, ``next_stream``: see `StreamRows`; ``rules``:
    of marketing; ``salts``: of its entries."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        cipher: BodyCipher,
        head: HeadRow,
        known: Mapping[tuple[str, int], StreamRow],
        next_stream: int,
        rules: MarketingRules,
        salts: Salts,
    ) -> None:
        self.connection = connection
        self._salts = salts
        self._cipher = cipher
        self.tallies = Tallies.load(head.tallies)
        self.streams = StreamRows(connection, self.tallies, known, next_stream)
        self.inboxes = InboxRows(connection, cipher, self.tallies, head.inbox_base, rules)
        self.outbox = OutboxRows(connection, cipher, self.tallies["outbox"])
        self.has_changed = False
        """Whether maintenance has done anything; else it is rolled back."""
        self._head = head
        self._seq = head.seq
        self._hash = head.hash
        self._anchor = head.anchor
        self._first_results: dict[bytes, KeyResult] = {}
        # Rows as the INSERT statements above take them.
        self._entries: list[tuple[Any, ...]] = []
        self._keys: list[tuple[Any, ...]] = []

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
                direct_ids.append(self.inboxes.add(item))
            elif type(item) is DirectsCancelled:
                cancelled += self.inboxes.cancel(item)
            elif type(item) is OutboxEntry:
                self.outbox.add(item, next(iter(offsets or direct_ids), 0))
            else:
                self._stage_other(item)
        if keys:
            first_item = submission.items[0]
            if type(first_item) is Entry and first_item.at_ms:
                at_ms = first_item.at_ms
            else:
                at_ms = next((at_ms for item in submission.items if (at_ms := getattr(item, "at_ms", 0))), 0)
            number = next(iter(offsets or direct_ids), 0)
            for key in keys:
                self._stage_key(key, number, at_ms)
        return Committed(tuple(offsets), tuple(direct_ids), tuple(cancelled))

    def _stage_entry(self, item: Entry) -> int:
        room, epoch, lane, kind, at_ms, body = item
        stream = self.streams.changed.get((room, epoch)) or self.streams.open(room, epoch, at_ms)
        stream.used_at_ms = at_ms
        offset = 0
        if lane is not None:
            offset = stream.last_offset = stream.last_offset + 1
        seq = self._seq = self._seq + 1
        data = canonical(seq, room, epoch, offset, lane, kind, at_ms)
        salt = self._salts.take()
        if kind not in READ_WITHOUT_KEY or lane is not None:
            body = self._cipher.encrypt("entries", body)
        hashed = self._hash = sha256(self._hash + data + sha256(salt + body).digest()).digest()  # `link`, `commitment`
        crc = zlib.crc32(body, zlib.crc32(data))
        self._entries.append((seq, stream.id, offset or None, lane, kind, at_ms, body, crc, hashed, salt))
        return offset

    def _stage_key(self, key: Key, offset: int, at_ms: int) -> None:
        digest, fingerprint, outcome, answer = key
        if digest in self._first_results:
            return  # named twice in one submission
        self._first_results[digest] = KeyResult(outcome, offset, answer, fingerprint)
        answer = self._cipher.encrypt("keys", answer)
        crc = key_checksum(digest, fingerprint, outcome, offset, answer, at_ms)
        self.tallies["keys"].add(crc)
        self._keys.append((digest, fingerprint, outcome, offset, answer, at_ms, crc))

    def _stage_other(self, item: Item) -> None:
        match item:
            case DirectAcked(user, direct_id, at_ms):
                self.inboxes.acknowledge(user, direct_id, at_ms)
            case OutboxDone(ids):
                for each in ids:
                    self.outbox.remove(each)
            case OutboxLater():
                self.outbox.delay(item)
            case OutboxAgain(ids, at_ms):
                for each in ids:
                    self.outbox.renew(each, at_ms)
            case RecordPut(kind, subject, name, at_ms, body):
                self.put_record(kind, subject, name, at_ms, body)
            case RecordRemoved(kind, subject, name):
                self.remove_record(kind, subject, name)
            case RoomOpened(room, epoch, at_ms):
                self.streams.open(room, epoch, at_ms).used_at_ms = at_ms
            case RoomCheckpointed(room, epoch, at_ms, totals):
                stream = self.streams.open(room, epoch, at_ms)
                stream.used_at_ms = at_ms
                self.streams.set_checkpoint(stream, at_ms, self._cipher.encrypt("checkpoints", totals))
            case RoomEnded(room, epoch, at_ms):
                # One that was never written needs no end; to open it now would end the stream that followed it.
                ended = self.streams.find(room, epoch)
                if ended is not None:
                    self.streams.end(ended, at_ms)
            case RoomForgotten(room, kinds, digests):
                self._forget(room, kinds, digests)
            case CopyFilled():
                self._fill(item)
            case CopyCleared(kinds):
                for kind in kinds:
                    rows = self.connection.execute("DELETE FROM records WHERE kind = ? RETURNING crc", (kind,))
                    for (crc,) in rows.fetchall():
                        self.tallies["records"].remove(crc)
                self.inboxes.clear()
            case CallAnswered():
                pass
            case EntriesRedacted():
                self._stage_entry(redact_entries(self.connection, self._cipher, item))
            case OutboxRedacted(bodies):
                redact_outbox(self.connection, self._cipher, self.tallies["outbox"], bodies)
            case AnswersRemoved(digests):
                remove_answers(self.connection, self.tallies["keys"], digests)
            case DirectsRedacted(bodies):
                self.inboxes.redact(bodies)
            case BatchRedacted(batch, body):
                self.inboxes.redact_batch(batch, body)
            case DirectsRemoved(user):
                self.inboxes.remove(user)
            case _:
                raise TypeError(f"not an item of the ledger: {item!r}")

    def _forget(self, room: str, kinds: tuple[str, ...], digests: tuple[bytes, ...]) -> None:
        """Delete what the file has of a room; nothing of it may be staged in this transaction."""
        for stream in self.streams.find_all("s.room = ?", (room,)):
            self.connection.execute("DELETE FROM entries WHERE stream = ?", (stream.id,))
            self.streams.forget(stream)
        for kind in kinds:
            rows = self.connection.execute("SELECT name FROM records WHERE kind = ? AND subject = ?", (kind, room))
            for (name,) in rows.fetchall():
                self.remove_record(kind, room, name)
        for digest in digests:
            rows = self.connection.execute("DELETE FROM keys WHERE digest = ? RETURNING crc", (digest,))
            for (crc,) in rows.fetchall():
                self.tallies["keys"].remove(crc)

    def _fill(self, rows: CopyFilled) -> None:
        """Take rows of another copy over that this one does not have."""
        self.inboxes.fill(rows)
        known = read_keys(self.connection, self._cipher, [digest for digest, *_ in rows.keys])
        for digest, fingerprint, outcome, offset, answer, at_ms in rows.keys:
            if digest not in known:
                self._stage_key(Key(digest, fingerprint, outcome, answer), offset, at_ms)

    def begin_lineage(self, lineage: bytes, new_epoch: Callable[[], int], at_ms: int) -> int:
        """Begin another history: every open room gets a stream of a new epoch, with its checkpoint, and inbox numbers
        continue above any that may have been given out. Return the number of rooms."""
        rooms = self.streams.find_all("s.ended_at_ms IS NULL AND s.room <> ''", ())
        for stream in rooms:
            checkpoint = self.connection.execute(
                "SELECT at_ms, totals FROM checkpoints WHERE stream = ?", (stream.id,)
            ).fetchone()
            self.streams.end(stream, at_ms)
            fresh = self.streams.begin(stream.room, new_epoch(), at_ms, stream.used_at_ms)
            if checkpoint is not None:
                self.streams.set_checkpoint(fresh, *checkpoint)
        self.inboxes.begin_lineage()
        self._head = self._head._replace(lineage=lineage, is_copy=0)
        return len(rooms)

    # ---- records

    def put_record(self, kind: str, subject: str, name: str, at_ms: int, body: bytes) -> None:
        """Write a record over the one under its names."""
        self.remove_record(kind, subject, name)
        body = self._cipher.encrypt("records", body)
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
        self.streams.write()
        insert_rows(self.connection, _ENTRIES, self._entries)
        insert_rows(self.connection, _KEYS, self._keys)
        self.inboxes.write()
        self.outbox.write()
        head = self._head._replace(
            batch=self._head.batch + 1,
            seq=self._seq,
            hash=self._hash,
            anchor_seq=self._anchor[0],
            anchor_hash=self._anchor[1],
            inbox_base=self.inboxes.base,
            tallies=self.tallies.dump(),
        )
        write_head(self.connection, head)
        return head
