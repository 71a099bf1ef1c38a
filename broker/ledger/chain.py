"""The hash chain over all entries.

Every entry's hash covers its own fields, a commitment to its body, and the hash of the entry before it, so that nothing
in the middle can be changed, removed or put in without a change of all later hashes. The checksum of a row lets a
reader trust one row without reading the chain: SQLite itself does not notice a flipped bit in a value.

The commitment is a hash of the body with random bytes in front, its *salt*. So a body can be removed for good: its
commitment takes the place of the salt, another body stands in the row, and every hash of the chain holds. Nobody can
tell from the commitment what the body was. The body that is there now counts only if a later entry, the fact of the
redaction, vouches for it: it lists the entries by sequence number, each with the SHA-256 of its new body. Facts stand
behind the entries that they vouch for, so retention removes none before those.

The canonical bytes name the room and epoch, not the database's row numbers: a copy or an export can be verified too.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from broker.ledger.entries import ENTRIES_REDACTED, LedgerDamaged, StoredEntry
from protocol.errors import RemoteProtocolError
from protocol.frames import pack_body, unpack_body

__all__ = [
    "GENESIS", "REDACTED_BYTES", "SALT_BYTES", "ChainHead", "ChainRow", "ChainVerifier", "Salts", "canonical",
    "checked", "commitment", "digest_of", "link", "pack_redactions", "verify",
]  # fmt: skip

GENESIS = bytes(32)
"""The hash before the first entry."""
SALT_BYTES = 16
SALTS_AT_ONCE = 256
REDACTED_BYTES = 32
"""Size of the commitment that stands in place of the salt of a redacted entry."""

ChainHead = tuple[int, bytes]
"""Sequence number and hash of an entry."""
ChainRow = tuple[StoredEntry, int, bytes, bytes]
"""An entry as it is stored, its checksum, its hash, and its salt, or, where it is redacted, its commitment."""

_FIXED = struct.Struct(">QQQqIBH")
_NO_LANE = 255


class Salts:
    """Random salts, each given out once, taken from the system `SALTS_AT_ONCE` at a time: every call gives up the
    interpreter's lock, which beside a busy event loop takes half a millisecond to get back."""

    __slots__ = ("_bytes", "_position")

    def __init__(self) -> None:
        self._bytes = b""
        self._position = 0

    def take(self) -> bytes:
        """Return the next salt."""
        position = self._position
        if position == len(self._bytes):
            self._bytes, position = os.urandom(SALT_BYTES * SALTS_AT_ONCE), 0
        self._position = end = position + SALT_BYTES
        return self._bytes[position:end]


def canonical(seq: int, room: str, epoch: int, offset: int, lane: int | None, kind: int, at_ms: int) -> bytes:
    """The bytes of an entry (the fields of `StoredEntry`) before its body, which hash and checksum cover.

    ``u64 seq, u64 epoch, u64 offset (0 none), i64 at_ms, u32 kind, u8 lane (255 none), u16 size of room``, the room in
    UTF-8.
    """
    name = room.encode()
    return _FIXED.pack(seq, epoch, offset, at_ms, kind, _NO_LANE if lane is None else lane, len(name)) + name


def commitment(salt: bytes, body: bytes) -> bytes:
    """What the hash of an entry covers in place of its body; that of a redacted entry stands where the salt was."""
    return salt if len(salt) == REDACTED_BYTES else hashlib.sha256(salt + body).digest()


def checked(entry: StoredEntry, crc: int, where: str) -> bytes:
    """The canonical bytes of an entry that was read back. LedgerDamaged if it does not have the checksum ``crc``."""
    try:
        data = canonical(*entry[:-1])
        holds = zlib.crc32(entry.body, zlib.crc32(data)) == crc
    except (struct.error, TypeError, AttributeError):  # a column has become something else altogether
        data, holds = b"", False
    if not holds:
        raise LedgerDamaged(f"{where}: entry {entry.seq} is not what was written (checksum)")
    return data


def link(before: bytes, data: bytes, commitment: bytes) -> bytes:
    """Hash of an entry with canonical bytes ``data`` that follows the one with hash ``before``."""
    return hashlib.sha256(before + data + commitment).digest()


def digest_of(body: bytes) -> bytes:
    """Return what a redaction says of a new body."""
    return hashlib.sha256(body).digest()


def pack_redactions(by: str, digests: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the body of a fact that vouches for new bodies: sequence number and `digest_of` each; ``by``: why."""
    return pack_body((by, *(seq.to_bytes(8, "big") + digest for seq, digest in digests)))


def _redactions_of(entry: StoredEntry) -> Iterator[tuple[int, bytes]]:
    """Yield what an entry vouches for; nothing unless it is such a fact."""
    if entry.kind == ENTRIES_REDACTED and entry.lane is None:
        try:
            for item in unpack_body(entry.body)[1:]:
                yield int.from_bytes(item[:8], "big"), item[8:]
        except (RemoteProtocolError, TypeError):
            return  # then it vouches for nothing


class ChainVerifier:
    """Checks entries one after the other. ``before``: the link that the first follows; ``where`` names the file.

    Memory: what it knows of redacted entries, about 200 bytes each.
    """

    def __init__(self, before: ChainHead, where: str) -> None:
        self.last = before
        """The last link."""
        self._where = where
        self._unvouched: dict[int, bytes] = {}

    def take(self, row: ChainRow) -> None:
        """Check the next entry. LedgerDamaged if one is missing, or it is not what was written."""
        entry, crc, stored, salt = row
        last, hashed = self.last
        if entry.seq != last + 1:
            raise LedgerDamaged(f"{self._where}: entry {last + 1} is missing (the next one is {entry.seq})")
        hashed = link(hashed, checked(entry, crc, self._where), commitment(salt, entry.body))
        if hashed != stored:
            raise LedgerDamaged(f"{self._where}: entry {entry.seq} does not follow entry {last} (hash chain)")
        self.last = entry.seq, hashed
        if len(salt) == REDACTED_BYTES:
            self._unvouched[entry.seq] = digest_of(entry.body)
        for seq, digest in _redactions_of(entry):
            if self._unvouched.get(seq) == digest:
                del self._unvouched[seq]

    def finish(self) -> None:
        """There are no more entries. LedgerDamaged where no redaction vouches for a body that was replaced."""
        for seq in self._unvouched:
            raise LedgerDamaged(f"{self._where}: entry {seq} is redacted, and no redaction says so")


def verify(rows: Iterable[ChainRow], before: ChainHead, where: str) -> ChainHead:
    """Check all entries that follow ``before``; return the last link.

    Raises LedgerDamaged at the first that is missing or is not what was written; ``where`` names the file in it.
    """
    verifier = ChainVerifier(before, where)
    for row in rows:
        verifier.take(row)
    verifier.finish()
    return verifier.last
