"""The ledger's file as one thread writes it: a batch of submissions in, one transaction, their results out.

A batch that fails takes nothing with it: no offset is lost, no hole is left, and a repeated key is found before
anything of its submission is written (`Transaction`).

After an error the transaction is rolled back and the store says so; what it may be used for next is the writer's
decision (`verify_tail` and `probe`). It must never report `Committed` before SQLite's COMMIT has returned, and with it
the fsync.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from broker.core.users.marketing import MarketingRules
from broker.ledger.chain import Salts
from broker.ledger.encryption import KEY_KIND, BodyCipher
from broker.ledger.entries import Committed, LedgerDamaged, Repeated, Submission
from broker.ledger.head import Head
from broker.ledger.key_rows import read_keys
from broker.ledger.rows import HeadRow, read_head
from broker.ledger.schema import connect, migrate
from broker.ledger.stream_rows import StreamRow
from broker.ledger.transaction import Transaction

__all__ = ["Store"]

MAX_KNOWN_STREAMS = 20_000
"""Streams whose end is kept in memory; others are read when they are needed."""


class Store:
    """The writing side of the file at ``path``. Used by one thread at a time; every method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cipher = BodyCipher(path)
        self.marketing = MarketingRules()
        """Rules in force; may be set by any thread."""
        self._known_keys: set[bytes] | None = None
        self._salts = Salts()
        self._connection = connect(path)
        try:
            self.migrated_from = migrate(self._connection, path)
            self._head = read_head(self._connection, str(path))
            self._next_stream = 1 + self._one("SELECT coalesce(max(stream), 0) FROM streams")
        except BaseException:
            self._connection.close()
            raise
        self._streams: dict[tuple[str, int], StreamRow] = {}

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for maintenance between two batches."""
        return self._connection

    @property
    def head(self) -> Head:
        """The end of what was committed."""
        return self._head.head

    def commit(self, batch: Sequence[Submission]) -> list[Committed | Repeated]:
        """Make a batch durable, in order; the results are those of its submissions, one each.

        sqlite3.Error: nothing of the batch is in the file, and nothing of it counts.
        """
        with self._transaction(self._finish) as transaction:
            known = read_keys(
                self._connection, self.cipher, [key.digest for submission in batch for key in submission.keys]
            )
            results = [transaction.stage(submission, known) for submission in batch]
            transaction.has_changed = True
        return results

    @contextmanager
    def maintain(self) -> Iterator[Transaction]:
        """Transaction of maintenance: it counts as a commit where it sets ``has_changed``, else it is rolled back.

        sqlite3.Error leaves everything as it was.
        """
        with self._transaction(lambda: self._connection.execute("COMMIT")) as transaction:
            yield transaction

    @contextmanager
    def _transaction(self, finish: Callable[[], object]) -> Iterator[Transaction]:
        head: HeadRow | None = None
        begin, execute = "BEGIN IMMEDIATE", self._connection.execute
        execute(begin)
        try:
            transaction = Transaction(
                self._connection, self.cipher, self._head, self._streams, self._next_stream, self.marketing, self._salts
            )
            yield transaction
            if transaction.has_changed:
                self._name_keys(transaction)
                head = transaction.write()
                finish()
            else:
                execute("ROLLBACK")
        except BaseException:
            self._roll_back()
            raise
        if head is not None:
            self._head = head
            self._keep(transaction)

    def _name_keys(self, transaction: Transaction) -> None:
        """Record the keys with which anything was encrypted since the last time, so that a start without them says so
        at once."""
        used = self.cipher.used
        if self._known_keys is None and used:
            rows = self._connection.execute("SELECT subject FROM records WHERE kind = ?", (KEY_KIND,))
            self._known_keys = {bytes.fromhex(subject) for (subject,) in rows}
        for key_id in used - (self._known_keys or set()):
            transaction.put_record(KEY_KIND, key_id.hex(), "", 0, b"")

    def _keep(self, transaction: Transaction) -> None:
        """Take over what a transaction has committed."""
        if self.cipher.used:
            self._known_keys = self._known_keys | self.cipher.used if self._known_keys else set(self.cipher.used)
        streams = transaction.streams
        self._next_stream = streams.next_number
        if len(self._streams) + len(streams.changed) > MAX_KNOWN_STREAMS:
            self._streams.clear()
        self._streams.update(streams.changed)
        for key in streams.removed:
            self._streams.pop(key, None)

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
        return self._one(
            "SELECT max(coalesce((SELECT at_ms FROM entries ORDER BY seq DESC LIMIT 1), 0),"
            " coalesce((SELECT max(used_at_ms) FROM streams), 0), coalesce((SELECT max(at_ms) FROM inboxes), 0))"
        )

    # ---- trust

    def verify_tail(self) -> None:
        """After an error: check that the file still ends where it did. LedgerDamaged if not."""
        found, acknowledged = read_head(self._connection, str(self.path)).head, self.head
        if found != acknowledged:
            raise LedgerDamaged(
                f"{self.path}: ends at commit {found.batch}, entry {found.seq}; "
                f"acknowledged were commit {acknowledged.batch}, entry {acknowledged.seq}"
            )
        if found.seq:
            row = self._connection.execute("SELECT hash FROM entries WHERE seq = ?", (found.seq,)).fetchone()
            if row is not None and row[0] != found.hash:
                raise LedgerDamaged(f"{self.path}: the last entry is not the one that was acknowledged")

    def probe(self) -> None:
        """Write and sync a commit that says nothing, over whatever a failed one has left in the log."""
        self.commit(())

    def _one(self, sql: str) -> int:
        value: int = self._connection.execute(sql).fetchone()[0]
        return value

    def close(self) -> None:
        """Close the file; SQLite then moves what is left of its log into the database."""
        self._connection.close()
