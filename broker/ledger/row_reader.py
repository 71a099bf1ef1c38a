"""Rows of the ledger's file as they are read: on a connection that changes nothing, each checked against its checksum.

One that is not what was written raises LedgerDamaged, never passes.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from broker.core.tenants.names import shown_name
from broker.ledger.chain import ChainHead, ChainRow, checked
from broker.ledger.encryption import ENCRYPTED, KEY_KIND, BodyCipher, mark_of
from broker.ledger.entries import (
    READ_WITHOUT_KEY,
    DirectState,
    FailureKind,
    LedgerDamaged,
    LedgerRefused,
    StoredDirect,
    StoredEntry,
    StoredOutbox,
    StoredRecord,
)
from broker.ledger.head import Head
from broker.ledger.key_file import LedgerKeys
from broker.ledger.rows import (
    HeadRow,
    direct_checksum,
    inbox_checksum,
    outbox_checksum,
    read_head,
    record_checksum,
    stream_checksum,
)
from broker.ledger.schema import connect, failure_kind_of, refusal_of, require_ledger

__all__ = [
    "SELECT_DIRECT", "SELECT_ENTRY", "SELECT_INBOX", "SELECT_OUTBOX", "SELECT_RECORD", "SELECT_STREAM", "RowReader",
    "reports_damage",
]  # fmt: skip

PAGE_ROWS = 1000
"""Rows of one query while reading the whole ledger."""

SELECT_ENTRY = (
    "SELECT e.seq, s.room, s.epoch, coalesce(e.offset, 0), e.lane, e.kind, e.at_ms, e.body, e.crc, e.hash, e.salt"
    " FROM entries AS e JOIN streams AS s ON s.stream = e.stream"
)
SELECT_STREAM = "SELECT stream, room, epoch, last_offset, opened_at_ms, used_at_ms, ended_at_ms, crc FROM streams"
SELECT_INBOX = "SELECT user, last_id, acked_id, at_ms, crc FROM inboxes"
SELECT_DIRECT = "SELECT user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, marketing, crc FROM directs"
SELECT_OUTBOX = "SELECT id, endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body, crc FROM outbox"
SELECT_RECORD = "SELECT kind, subject, name, at_ms, body, crc FROM records"

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="RowReader")


def reports_damage(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], R]:
    """SQLite's own ways of saying that the file is broken become LedgerDamaged."""

    @functools.wraps(method)
    def asked(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
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


class RowReader:
    """The ledger at ``path``. LedgerRefused if it is none, of a newer version, or not there."""

    def __init__(self, path: Path, keys: LedgerKeys | None = None) -> None:
        self.path = path
        self.cipher = BodyCipher(path, keys)
        if not path.exists():
            raise LedgerRefused(f"{path}: there is no ledger")
        try:
            self._connection = connect(path, readonly=True)
            self._connection.create_function("plain", 2, self.cipher.decrypt)
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

    def plain(self, column: str, table: str) -> str:
        """Return SQL for the bodies of a table as they were written. ``column``: where they are stored."""
        return column if self.cipher.keys is None else f"plain('{table}', {column})"

    @reports_damage
    def require_keys(self) -> None:
        """Check that all keys are there with which anything that is kept was encrypted. LedgerRefused names one that
        is not. O(1) where all are there, else O(rows)."""
        for key_id in self.recorded_keys():
            if not self.cipher.has(key_id) and self.needs_key(key_id):
                raise self.cipher.refusal(key_id)

    def recorded_keys(self) -> frozenset[bytes]:
        """Return the ids of all keys with which anything was ever encrypted."""
        rows = self._connection.execute("SELECT subject FROM records WHERE kind = ?", (KEY_KIND,))
        return frozenset(bytes.fromhex(subject) for (subject,) in rows)

    def needs_key(self, key_id: bytes) -> bool:
        """Return whether anything that is kept was encrypted with a key. O(rows)."""
        mark = mark_of(key_id)
        return any(
            self._connection.execute(
                f"SELECT 1 FROM {table} WHERE substr({column}, 1, {len(mark)}) = ? LIMIT 1", (mark,)
            ).fetchone()
            for table, column in ENCRYPTED.items()
        )

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
            yield self.head_row()
        finally:
            if is_outer and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @reports_damage
    def head_row(self) -> HeadRow:
        """Return the head row, whose seal holds."""
        return read_head(self._connection, str(self.path))

    def ends(self) -> tuple[Head, ChainHead]:
        """Return the head, and the anchor that the first entry follows."""
        row = self.head_row()
        return row.head, row.anchor

    def entries(self, after: int = 0, last: int | None = None) -> Iterator[ChainRow]:
        """Yield entries in order of writing, unchecked, with their bodies as they were written.

        Within `snapshot`, where retention may remove some meanwhile. LedgerRefused without the key of one.
        """
        for entry, *rest in self.chain_rows(after, last):
            yield self.decrypted(entry), *rest  # type: ignore[misc]  # the rest has the types of a ChainRow

    def chain_rows(self, after: int = 0, last: int | None = None) -> Iterator[ChainRow]:
        """Yield entries as `entries` does, as they are stored: `chain.verify` checks them, and needs no key."""
        end = self.ends()[0].seq if last is None else last
        while after < end:
            rows = self._connection.execute(
                f"{SELECT_ENTRY} WHERE e.seq > ? AND e.seq <= ? ORDER BY e.seq LIMIT {PAGE_ROWS}", (after, end)
            ).fetchall()
            if not rows:
                return
            for row in rows:
                yield StoredEntry(*row[:8]), *row[8:]
            after = rows[-1][0]

    # ---- checked rows

    # Any: rows of SQLite.
    def _entry(self, row: tuple[Any, ...]) -> StoredEntry:
        entry = StoredEntry(*row[:8])
        checked(entry, row[8], str(self.path))
        return self.decrypted(entry)

    def decrypted(self, entry: StoredEntry) -> StoredEntry:
        """Return an entry that is as it is stored with its body as it was written."""
        if entry.kind in READ_WITHOUT_KEY and entry.lane is None:
            return entry
        body = self.cipher.decrypt("entries", entry.body)
        return entry if body is entry.body else entry._replace(body=body)

    def _stream(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        if stream_checksum(*row[:7]) != row[7]:
            raise LedgerDamaged(
                f"{self.path}: stream {row[2]} of room {shown_name(row[1])} is not what was written (checksum)"
            )
        return row

    def _inbox(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        if inbox_checksum(*row[:4]) != row[4]:
            raise LedgerDamaged(f"{self.path}: an inbox that ends at {row[1]} is not what was written (checksum)")
        return row

    def _check_direct(self, row: tuple[Any, ...]) -> None:
        if direct_checksum(*row[:9]) != row[9]:
            raise LedgerDamaged(f"{self.path}: message {row[1]} of an inbox is not what was written (checksum)")

    def _direct(self, row: tuple[Any, ...]) -> StoredDirect:
        self._check_direct(row)
        user, direct_id, kind, at_ms, expires_at_ms, state, batch, body, *_ = row
        body = self.cipher.decrypt("directs", body)
        return StoredDirect(user, direct_id, kind, at_ms, expires_at_ms, DirectState(state), body, batch)

    def _check_outbox(self, row: tuple[Any, ...]) -> None:
        if outbox_checksum(*row[1:-1]) != row[-1]:
            raise LedgerDamaged(f"{self.path}: outbox row {row[0]} is not what was written (checksum)")

    def _outbox(self, row: tuple[Any, ...]) -> StoredOutbox:
        self._check_outbox(row)
        return StoredOutbox(*row[:-1])._replace(body=self.cipher.decrypt("outbox", row[-2]))

    def _check_record(self, row: tuple[Any, ...]) -> None:
        if record_checksum(*row[:5]) != row[5]:
            raise LedgerDamaged(f"{self.path}: a record {row[0]} is not what was written (checksum)")

    def _record(self, row: tuple[Any, ...]) -> StoredRecord:
        self._check_record(row)
        return StoredRecord(*row[:5])._replace(body=self.cipher.decrypt("records", row[4]))
