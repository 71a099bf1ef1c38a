"""Redaction: what was written is replaced or removed, and the ledger still verifies (`broker.ledger.chain`)."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence

from broker.ledger.chain import canonical, commitment, digest_of, pack_redactions
from broker.ledger.encryption import BodyCipher
from broker.ledger.entries import ENTRIES_REDACTED, READ_WITHOUT_KEY, EntriesRedacted, Entry
from broker.ledger.rows import Tally, key_checksum, outbox_checksum

__all__ = ["redact_entries", "redact_outbox", "remove_answers"]


def redact_entries(connection: sqlite3.Connection, cipher: BodyCipher, item: EntriesRedacted) -> Entry:
    """Replace bodies of entries that are in the file; return the fact that vouches for them, to be written with it.

    Facts that vouch for others are left as they are: without them what they vouch for could not be verified any more.
    """
    digests: list[tuple[int, bytes]] = []
    for seq, body in item.bodies:
        row = connection.execute(
            "SELECT s.room, s.epoch, coalesce(e.offset, 0), e.lane, e.kind, e.at_ms, e.body, e.salt"
            " FROM entries AS e JOIN streams AS s USING (stream) WHERE e.seq = ?",
            (seq,),
        ).fetchone()
        if row is None:
            continue  # retention was quicker
        *fields, before, salt = row
        if fields[4] == ENTRIES_REDACTED and fields[3] is None:
            continue
        if fields[4] not in READ_WITHOUT_KEY or fields[3] is not None:
            body = cipher.encrypt("entries", body)
        crc = zlib.crc32(body, zlib.crc32(canonical(seq, *fields)))
        connection.execute(
            "UPDATE entries SET body = ?, crc = ?, salt = ? WHERE seq = ?", (body, crc, commitment(salt, before), seq)
        )
        digests.append((seq, digest_of(body)))
    return Entry("", 0, None, ENTRIES_REDACTED, item.at_ms, pack_redactions(item.by, digests))


def redact_outbox(
    connection: sqlite3.Connection, cipher: BodyCipher, tally: Tally, bodies: Sequence[tuple[int, bytes]]
) -> None:
    """Replace bodies of rows of the outbox."""
    columns = "endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason"
    for each, body in bodies:
        row = connection.execute(f"SELECT {columns}, crc FROM outbox WHERE id = ?", (each,)).fetchone()
        if row is not None:
            endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, before = row
            body = cipher.encrypt("outbox", body)
            crc = outbox_checksum(endpoint, line, topic, number, at_ms, due_at_ms, attempts, reason, body)
            tally.replace(before, crc)
            connection.execute("UPDATE outbox SET body = ?, crc = ? WHERE id = ?", (body, crc, each))


def remove_answers(connection: sqlite3.Connection, tally: Tally, digests: Sequence[bytes]) -> None:
    """Remove the answers of keys, which stay known."""
    for digest in digests:
        row = connection.execute(
            "SELECT fingerprint, outcome, offset, at_ms, crc FROM keys WHERE digest = ?", (digest,)
        ).fetchone()
        if row is not None:
            fingerprint, outcome, offset, at_ms, before = row
            crc = key_checksum(digest, fingerprint, outcome, offset, b"", at_ms)
            tally.replace(before, crc)
            connection.execute("UPDATE keys SET answer = x'', crc = ? WHERE digest = ?", (crc, digest))
