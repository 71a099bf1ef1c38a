"""Rows of the outbox, as one transaction changes them."""

from __future__ import annotations

import sqlite3
from typing import Any

from broker.ledger.encryption import BodyCipher
from broker.ledger.entries import OutboxEntry, OutboxLater
from broker.ledger.inserting import insert_rows
from broker.ledger.rows import Tally, outbox_checksum

__all__ = ["OutboxRows"]

_OUTBOX = "INSERT INTO outbox (endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body, crc)"
_OUTBOX_ROW = "endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body, crc"


class OutboxRows:
    """Outbox of one transaction."""

    def __init__(self, connection: sqlite3.Connection, cipher: BodyCipher, tally: Tally) -> None:
        self._connection = connection
        self._cipher = cipher
        self._tally = tally
        self._rows: list[tuple[Any, ...]] = []
        """Rows as the statement takes them."""

    def add(self, entry: OutboxEntry, number: int = 0) -> None:
        """Add a row to the outbox, due at once."""
        self._add(entry._replace(body=self._cipher.encrypt("outbox", entry.body)), number)

    def _add(self, entry: OutboxEntry, number: int) -> None:
        """Add a row whose body is as it is stored."""
        topic, at_ms, body, endpoint, line = entry
        crc = outbox_checksum(endpoint, line, topic, number, at_ms, at_ms, 0, "", body)
        self._tally.add(crc)
        self._rows.append((endpoint, line, topic, number, at_ms, at_ms, 0, "", body, crc))

    def remove(self, each: int) -> None:
        """Delete a row."""
        self.write()
        rows = self._connection.execute("DELETE FROM outbox WHERE id = ? RETURNING crc", (each,)).fetchall()
        for (crc,) in rows:
            self._tally.remove(crc)

    def delay(self, later: OutboxLater) -> None:
        """Set when a row is tried again, or that it never is."""
        self.write()
        each, attempts, due_at_ms, reason = later
        row = self._connection.execute(f"SELECT {_OUTBOX_ROW} FROM outbox WHERE id = ?", (each,)).fetchone()
        if row is not None:
            endpoint, line, topic, number, at_ms, _, _, _, body, before = row
            crc = outbox_checksum(endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body)
            self._tally.replace(before, crc)
            self._connection.execute(
                "UPDATE outbox SET attempts = ?, due_at_ms = ?, reason = ?, crc = ? WHERE id = ?",
                (attempts, due_at_ms, reason, crc, each),
            )

    def renew(self, each: int, at_ms: int) -> None:
        """Put a dead letter at the end of its line."""
        self.write()
        row = self._connection.execute(
            "SELECT topic, body, endpoint, line, number FROM outbox WHERE id = ? AND due_at_ms IS NULL", (each,)
        ).fetchone()
        if row is not None:
            topic, body, endpoint, line, number = row
            self.remove(each)
            self._add(OutboxEntry(topic, at_ms, body, endpoint, line), number)

    def write(self) -> None:
        """Write what was gathered."""
        insert_rows(self._connection, _OUTBOX, self._rows)
        self._rows = []
