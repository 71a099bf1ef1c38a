"""Rows of the ledger in which a text occurs, in pages. All of it runs in the ledger's reading thread.

A page inspects `SCAN_ROWS` rows of one table at most: a few milliseconds, in which no other question is answered. That
a text occurs is a matter of bytes: the caller reads what a row says of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.ledger.chain import checked
from broker.ledger.entries import LedgerDamaged, StoredDirect, StoredEntry, StoredOutbox, StoredRecord
from broker.ledger.reader import Reader
from broker.ledger.rows import checkpoint_checksum, record_checksum

__all__ = [
    "SCAN_ROWS", "StoredCheckpoint", "answers_with", "checkpoints_with", "directs_with",
    "entries_with", "has_directs", "outbox_of_line", "outbox_of_lines", "outbox_with", "records_with",
]  # fmt: skip

SCAN_ROWS = 5000
MAX_FOUND = 200
MAX_BYTES = 512 * 1024
"""Of the bodies of a page; one may be above it."""


class StoredCheckpoint(NamedTuple):
    """Checkpoint of a stream that has not ended."""

    room: str
    epoch: int
    used_at_ms: int
    totals: bytes


def entries_with(reader: Reader, text: str, after: int) -> tuple[list[StoredEntry], int, bool]:
    """Return entries after number ``after`` whose bodies hold ``text``, the last number inspected, and whether that is
    all."""
    head, anchor = reader.ends()
    after = max(after, anchor[0])
    last = min(head.seq, after + SCAN_ROWS)
    found: list[StoredEntry] = []
    nbytes = 0
    for row in reader.connection.execute(
        "SELECT e.seq, s.room, s.epoch, coalesce(e.offset, 0), e.lane, e.kind, e.at_ms, e.body, e.crc"
        " FROM entries AS e JOIN streams AS s ON s.stream = e.stream"
        f" WHERE e.seq > ? AND e.seq <= ? AND instr({reader.plain('e.body', 'entries')}, ?) > 0 ORDER BY e.seq LIMIT ?",
        (after, last, text.encode(), MAX_FOUND),
    ):
        entry = StoredEntry(*row[:8])
        checked(entry, row[8], str(reader.path))
        entry = reader.decrypted(entry)
        found.append(entry)
        nbytes += len(entry.body)
        if nbytes > MAX_BYTES or len(found) == MAX_FOUND:
            return found, entry.seq, entry.seq == head.seq
    return found, last, last == head.seq


def outbox_with(reader: Reader, text: str, line: str, after: int) -> tuple[list[StoredOutbox], int | None]:
    """Return rows of the outbox after id ``after`` whose bodies hold ``text`` as JSON, or of ``line``, and the last id
    inspected, None = that is all."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    body = reader.plain("body", "outbox")
    rows = reader.connection.execute(
        f"SELECT id, line = ? OR instr({body}, ?) > 0 FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
        (line, escaped, after, SCAN_ROWS),
    ).fetchall()
    ids = [each for each, holds in rows if holds][:MAX_FOUND]
    found: list[StoredOutbox] = []
    nbytes = 0
    for row in reader.outbox_rows(ids):
        found.append(row)
        nbytes += len(row.body)
        if nbytes > MAX_BYTES:
            return found, row.id
    if len(ids) == MAX_FOUND:
        return found, ids[-1]
    return found, rows[-1][0] if len(rows) == SCAN_ROWS else None


def answers_with(reader: Reader, text: str, after: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Return keys after digest ``after`` whose answers hold ``text``, each with its answer, and the last digest
    inspected, None = that is all."""
    rows = reader.connection.execute(
        f"SELECT digest, CASE WHEN instr({reader.plain('answer', 'keys')}, ?) > 0 THEN answer END FROM keys"
        " WHERE digest > ? ORDER BY digest"
        " LIMIT ?",
        (text.encode(), after, SCAN_ROWS),
    ).fetchall()
    found = [(digest, reader.cipher.decrypt("keys", answer)) for digest, answer in rows if answer is not None]
    return found, rows[-1][0] if len(rows) == SCAN_ROWS else None


def records_with(
    reader: Reader, text: str, after: Sequence[str]
) -> tuple[list[StoredRecord], tuple[str, str, str] | None]:
    """Return records after kind, subject and name ``after`` that hold ``text`` in their body, or have it in their
    subject or name, and the names of the last one inspected, None = that is all."""
    rows: list[tuple[Any, ...]] = reader.connection.execute(
        "SELECT kind, subject, name, at_ms, body, crc,"
        f" instr({reader.plain('body', 'records')}, ?) + instr(subject, ?) + instr(name, ?) FROM records"
        " WHERE (kind, subject, name) > (?, ?, ?) ORDER BY kind, subject, name LIMIT ?",
        (text.encode(), text, text, *after, SCAN_ROWS),
    ).fetchall()
    found: list[StoredRecord] = []
    nbytes = 0
    for *columns, crc, holds in rows:
        if not holds:
            continue
        record = StoredRecord(*columns)
        if record_checksum(*record) != crc:
            raise LedgerDamaged(f"{reader.path}: a record {record.kind} is not what was written")
        record = record._replace(body=reader.cipher.decrypt("records", record.body))
        found.append(record)
        nbytes += len(record.body)
        if nbytes > MAX_BYTES or len(found) == MAX_FOUND:
            return found, record[:3]
    return found, rows[-1][:3] if len(rows) == SCAN_ROWS else None


def checkpoints_with(reader: Reader, text: str, after: int) -> tuple[list[StoredCheckpoint], int | None]:
    """Return checkpoints of streams after number ``after`` that hold ``text``, and the last number inspected, None =
    that is all."""
    rows = reader.connection.execute(
        "SELECT c.stream, s.room, s.epoch, s.used_at_ms, c.at_ms, c.totals, c.crc,"
        f" instr({reader.plain('c.totals', 'checkpoints')}, ?)"
        " FROM checkpoints AS c JOIN streams AS s USING (stream) WHERE c.stream > ? ORDER BY c.stream LIMIT ?",
        (text.encode(), after, SCAN_ROWS // 10),
    ).fetchall()
    found: list[StoredCheckpoint] = []
    for stream, room, epoch, used_at_ms, at_ms, totals, crc, holds in rows:
        if holds:
            if checkpoint_checksum(stream, at_ms, totals) != crc:
                raise LedgerDamaged(f"{reader.path}: the checkpoint of stream {stream} is not what was written")
            found.append(StoredCheckpoint(room, epoch, used_at_ms, reader.cipher.decrypt("checkpoints", totals)))
            if len(found) == MAX_FOUND:
                return found, stream
    return found, rows[-1][0] if len(rows) == SCAN_ROWS // 10 else None


def directs_with(reader: Reader, text: str, after: int) -> tuple[list[tuple[int, StoredDirect]], int | None]:
    """Return must-deliver messages whose bodies hold ``text``, each with the id of its row, of rows after id ``after``,
    and the last id inspected, None = that is all."""
    rows = reader.connection.execute(
        f"SELECT id, instr({reader.plain('body', 'directs')}, ?) FROM directs WHERE id > ? ORDER BY id LIMIT ?",
        (text.encode(), after, SCAN_ROWS),
    ).fetchall()
    found: list[tuple[int, StoredDirect]] = []
    nbytes = 0
    for each, holds in rows:
        stored = reader.direct_row(each) if holds else None
        if stored is not None:  # maintenance may remove it between the two reads
            found.append((each, stored))
            nbytes += len(stored.body)
            if nbytes > MAX_BYTES or len(found) == MAX_FOUND:
                return found, each
    return found, rows[-1][0] if len(rows) == SCAN_ROWS else None


def outbox_of_lines(reader: Reader, lines: Sequence[str]) -> list[StoredOutbox]:
    """Return all rows of the outbox of some lines."""
    rows = reader.connection.execute(
        "SELECT id FROM outbox WHERE line IN (SELECT value FROM json_each(?))", (json.dumps(list(lines)),)
    )
    return list(reader.outbox_rows([each for (each,) in rows]))


def outbox_of_line(reader: Reader, line: str, topic: str, since_ms: int) -> list[StoredOutbox]:
    """Return rows of the outbox of one line and topic that were added at ``since_ms`` or later."""
    rows = reader.connection.execute(
        "SELECT id FROM outbox WHERE line = ? AND topic = ? AND at_ms >= ? LIMIT ?", (line, topic, since_ms, SCAN_ROWS)
    )
    return list(reader.outbox_rows([each for (each,) in rows]))


def has_directs(reader: Reader, user: str) -> bool:
    """Return whether anything of a user's inbox is kept."""
    query = "SELECT 1 FROM directs WHERE user = ? UNION ALL SELECT 1 FROM inboxes WHERE user = ? LIMIT 1"
    return reader.connection.execute(query, (user, user)).fetchone() is not None
