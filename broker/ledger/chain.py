"""The hash chain over all entries.

Every entry's hash covers its own bytes and the hash of the entry before it, so that nothing in the middle can be
changed, removed or put in without a change of all later hashes. The checksum of a row lets a reader trust one row
without reading the chain: SQLite itself does not notice a flipped bit in a value.

The canonical bytes name the room and epoch, not the database's row numbers: a copy or an export can be verified too.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable

from broker.ledger.entries import LedgerDamaged, StoredEntry

__all__ = ["GENESIS", "ChainHead", "canonical", "checked", "link", "verify"]

GENESIS = bytes(32)
"""The hash before the first entry."""

ChainHead = tuple[int, bytes]
"""Sequence number and hash of an entry."""

_FIXED = struct.Struct(">QQQqIBH")
_NO_LANE = 255


def canonical(
    seq: int, room: str, epoch: int, offset: int, lane: int | None, kind: int, at_ms: int, body: bytes
) -> bytes:
    """The bytes of an entry (the fields of `StoredEntry`) that hash and checksum cover.

    ``u64 seq, u64 epoch, u64 offset (0 none), i64 at_ms, u32 kind, u8 lane (255 none), u16 size of room``, the room in
    UTF-8, the body.
    """
    name = room.encode()
    return _FIXED.pack(seq, epoch, offset, at_ms, kind, _NO_LANE if lane is None else lane, len(name)) + name + body


def checked(entry: StoredEntry, crc: int, where: str) -> bytes:
    """The canonical bytes of an entry that was read back. LedgerDamaged if they do not have the checksum ``crc``."""
    try:
        data = canonical(*entry)
    except (struct.error, TypeError, AttributeError):  # a column has become something else altogether
        data = b""
    if not data or zlib.crc32(data) != crc:
        raise LedgerDamaged(f"{where}: entry {entry.seq} is not what was written (checksum)")
    return data


def link(before: bytes, data: bytes) -> bytes:
    """Hash of an entry with canonical bytes ``data`` that follows the one with hash ``before``."""
    return hashlib.sha256(before + data).digest()


def verify(entries: Iterable[tuple[StoredEntry, int, bytes]], before: ChainHead, where: str) -> ChainHead:
    """Check ``entries`` (entry, checksum, hash) that follow ``before``; return the last link.

    Raises LedgerDamaged at the first that is missing or is not what was written; ``where`` names the file in it.
    """
    last, hashed = before
    for entry, crc, stored in entries:
        if entry.seq != last + 1:
            raise LedgerDamaged(f"{where}: entry {last + 1} is missing (the next one is {entry.seq})")
        hashed = link(hashed, checked(entry, crc, where))
        if hashed != stored:
            raise LedgerDamaged(f"{where}: entry {entry.seq} does not follow entry {last} (hash chain)")
        last = entry.seq
    return last, hashed
