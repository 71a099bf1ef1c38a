"""Rows of idempotency keys as they are read back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from broker.ledger.encryption import BodyCipher
from broker.ledger.entries import KeyResult, LedgerDamaged
from broker.ledger.inserting import placeholders, sizes_of
from broker.ledger.rows import key_checksum

__all__ = ["read_key_rows", "read_keys"]


def read_keys(connection: sqlite3.Connection, cipher: BodyCipher, digests: Sequence[bytes]) -> dict[bytes, KeyResult]:
    """Return the first results of those keys that are known. LedgerDamaged where a row is not what was written."""
    return {
        digest: KeyResult(outcome, offset, answer, fingerprint)
        for digest, fingerprint, outcome, offset, answer, _ in read_key_rows(connection, cipher, digests)
    }


def read_key_rows(
    connection: sqlite3.Connection, cipher: BodyCipher, digests: Sequence[bytes]
) -> Iterator[tuple[bytes, bytes, int, int, bytes, int]]:
    """Yield digest, fingerprint, outcome, number, answer and time of those keys that are known. As `read_keys`."""
    position = 0
    for size in sizes_of(len(digests)):
        asked = tuple(digests[position : position + size])
        position += size
        asked += asked[-1:] * (size - len(asked))
        sql = (
            "SELECT digest, fingerprint, outcome, offset, answer, at_ms, crc FROM keys"
            f" WHERE digest IN {placeholders(size, 1)}"
        )
        for row in connection.execute(sql, asked).fetchall():
            digest, fingerprint, outcome, offset, answer, at_ms, crc = row
            if key_checksum(*row[:6]) != crc:
                raise LedgerDamaged(f"key {digest.hex()} is not what was written (checksum)")
            yield digest, fingerprint, outcome, offset, cipher.decrypt("keys", answer), at_ms
