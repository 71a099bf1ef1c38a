"""Checksums of the rows beside the hash chain, tallies of all tables, and the head row that seals both.

The chain holds for entries. Every other table changes in place: each of its rows has a checksum over all its columns,
and the head counts the rows and sums their checksums. So a row that was changed, removed or put back to an older
state is found: the tallies of the file are then not those of its rows. The *seal*, a SHA-256, covers the whole head
row; the high-water mark repeats it.

These find what disks, copies and people do by mistake. Who can write the file can also compute new checksums.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from broker.ledger.chain import GENESIS, ChainHead
from broker.ledger.entries import DirectState, LedgerDamaged
from broker.ledger.head import Head

__all__ = [
    "ACKED_MARK",
    "CRC_MASK",
    "TABLES",
    "HeadRow",
    "Tallies",
    "Tally",
    "checkpoint_checksum",
    "direct_checksum",
    "inbox_checksum",
    "key_checksum",
    "outbox_checksum",
    "read_head",
    "record_checksum",
    "state_mark",
    "stream_checksum",
    "write_head",
]

TABLES = ("streams", "checkpoints", "keys", "inboxes", "directs", "outbox", "records")
CRC_MASK = 0xFFFFFFFF
ACKED_MARK = 0x9E3779B1
"""What a direct message's checksum grows by when it is acknowledged; SQL adds it, so that an acknowledgement of many
messages is one statement."""


def stream_checksum(
    stream: int, room: str, epoch: int, last_offset: int, opened_at_ms: int, used_at_ms: int, ended_at_ms: int | None
) -> int:
    """Return the checksum of a row of streams."""
    ended = -1 if ended_at_ms is None else ended_at_ms
    fields = stream, epoch, last_offset, opened_at_ms, used_at_ms, ended, room.encode()
    return zlib.crc32(b"%d %d %d %d %d %d %b" % fields)


def checkpoint_checksum(stream: int, at_ms: int, totals: bytes) -> int:
    """Return the checksum of a row of checkpoints."""
    return zlib.crc32(b"%d %d %b" % (stream, at_ms, totals))


def key_checksum(digest: bytes, fingerprint: bytes, outcome: int, offset: int, answer: bytes, at_ms: int) -> int:
    """Return the checksum of a row of keys."""
    return zlib.crc32(b"%b%b%d %d %d %b" % (digest, fingerprint, outcome, offset, at_ms, answer))


def inbox_checksum(user: str, last_id: int, acked_id: int, at_ms: int) -> int:
    """Return the checksum of a row of inboxes."""
    return zlib.crc32(b"%d %d %d %b" % (last_id, acked_id, at_ms, user.encode()))


def direct_checksum(
    user: str,
    direct_id: int,
    kind: int,
    at_ms: int,
    expires_at_ms: int,
    state: int,
    batch: str,
    body: bytes,
    marketing: int,
) -> int:
    """Return the checksum of a row of directs: that of what never changes, and the mark of its state."""
    fields = direct_id, kind, at_ms, expires_at_ms, user.encode(), batch.encode(), body
    crc = zlib.crc32(b"%d %d %d %d %b\0%b\0%b" % fields, marketing)
    return crc + state_mark(state) & CRC_MASK


def state_mark(state: int) -> int:
    """Return what the state of a direct message adds to its checksum."""
    return state * ACKED_MARK & CRC_MASK


def outbox_checksum(
    endpoint: str,
    line: str,
    topic: str,
    number: int,
    at_ms: int,
    due_at_ms: int | None,
    attempts: int,
    reason: str,
    body: bytes,
) -> int:
    """Return the checksum of a row of outbox."""
    due = -1 if due_at_ms is None else due_at_ms
    texts = endpoint.encode(), line.encode(), topic.encode(), reason.encode()
    return zlib.crc32(b"%d %d %d %d %b\0%b\0%b\0%b\0%b" % (number, at_ms, due, attempts, *texts, body))


def record_checksum(kind: str, subject: str, name: str, at_ms: int, body: bytes) -> int:
    """Return the checksum of a row of records."""
    fields = at_ms, kind.encode(), subject.encode(), name.encode(), body
    return zlib.crc32(b"%d %b\0%b\0%b\0%b" % fields)


class Tally:
    """How many rows a table has, and the sum of their checksums."""

    __slots__ = ("rows", "sum")

    def __init__(self, rows: int = 0, sum: int = 0) -> None:
        self.rows = rows
        self.sum = sum

    def add(self, crc: int) -> None:
        """Count a new row."""
        self.rows += 1
        self.sum += crc

    def remove(self, crc: int) -> None:
        """Count off a row that is deleted."""
        self.rows -= 1
        self.sum -= crc

    def replace(self, before: int | None, crc: int) -> None:
        """Count a row that is written over the one with checksum ``before``; None = there was none."""
        if before is None:
            self.rows += 1
            before = 0
        self.sum += crc - before


class Tallies:
    """The tallies of all tables, and how many direct messages are in each state.

    The sum of directs is that of their checksums as pending messages, so that an acknowledgement changes only the
    states.
    """

    __slots__ = ("by_table", "states")

    def __init__(self) -> None:
        self.by_table = {table: Tally() for table in TABLES}
        self.states = [0] * len(DirectState)

    @classmethod
    def load(cls, text: str) -> Tallies:
        """Return the tallies that `dump` has written. ValueError, KeyError, IndexError, TypeError for anything else."""
        values = json.loads(text)
        found = cls()
        found.by_table = {table: Tally(*values[table]) for table in TABLES}
        for state, count in enumerate(values["states"]):  # ledgers before CANCELLED have three
            found.states[state] = count
        return found

    def dump(self) -> str:
        """Return the tallies as JSON: ``{"streams": [rows, sum], ..., "states": [rows in each DirectState]}``."""
        tables = ", ".join(f'"{table}": [{tally.rows}, {tally.sum}]' for table, tally in self.by_table.items())
        return f'{{{tables}, "states": {self.states}}}'

    def __getitem__(self, table: str) -> Tally:
        return self.by_table[table]

    def add_direct(self, crc: int, state: int) -> None:
        """Count a direct message with the checksum ``crc`` of its row."""
        self.by_table["directs"].add(crc - state_mark(state) & CRC_MASK)
        self.states[state] += 1

    def remove_directs(self, rows: Iterable[tuple[int, int]]) -> int:
        """Count off direct messages that are deleted, by checksum and state; return how many."""
        removed = 0
        for crc, state in rows:
            self.by_table["directs"].remove(crc - state_mark(state) & CRC_MASK)
            self.states[state] -= 1
            removed += 1
        return removed

    def move_directs(self, count: int, before: DirectState, after: DirectState) -> None:
        """Count ``count`` direct messages that change their state."""
        self.states[before] -= count
        self.states[after] += count

    @property
    def is_empty(self) -> bool:
        """Whether no table has a row."""
        return not any(tally.rows for tally in self.by_table.values())


class HeadRow(NamedTuple):
    """The one row of the table head.

    ``anchor_*``: the last removed link of the chain. ``is_copy``: 1 in a backup, which must be restored before a broker
    writes to it. ``inbox_base``: the number after which a new inbox begins.
    """

    batch: int
    seq: int
    hash: bytes
    anchor_seq: int
    anchor_hash: bytes
    lineage: bytes
    is_copy: int
    inbox_base: int
    tallies: str

    @classmethod
    def new(cls, lineage: bytes) -> HeadRow:
        """Return the head of an empty ledger."""
        return cls(0, 0, GENESIS, 0, GENESIS, lineage, 0, 0, Tallies().dump())

    @property
    def seal(self) -> bytes:
        """SHA-256 over the whole row."""
        numbers = b"%d %d %d %d %d " % (self.batch, self.seq, self.anchor_seq, self.is_copy, self.inbox_base)
        return hashlib.sha256(numbers + self.hash + self.anchor_hash + self.lineage + self.tallies.encode()).digest()

    @property
    def head(self) -> Head:
        """What the high-water mark repeats."""
        return Head(self.batch, self.seq, self.hash, self.lineage, self.seal)

    @property
    def anchor(self) -> ChainHead:
        """The link that the first entry follows."""
        return self.anchor_seq, self.anchor_hash


def read_head(connection: sqlite3.Connection, where: str) -> HeadRow:
    """Return the head row. LedgerDamaged where it is missing or its seal does not hold; ``where`` names the file."""
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT batch, seq, hash, anchor_seq, anchor_hash, lineage, is_copy, inbox_base, tallies, seal FROM head"
    ).fetchone()
    if row is None:
        raise LedgerDamaged(f"{where}: has no head")
    found = HeadRow(*row[:-1])
    try:
        holds = found.seal == row[-1]
    except (TypeError, AttributeError):
        holds = False
    if not holds:
        raise LedgerDamaged(f"{where}: the head is not what was written (seal)")
    return found


def write_head(connection: sqlite3.Connection, row: HeadRow) -> None:
    """Write the head row with its seal."""
    connection.execute(
        "INSERT OR REPLACE INTO head (one, batch, seq, hash, anchor_seq, anchor_hash, lineage, is_copy, inbox_base,"
        " tallies, seal) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, row.seal),
    )
