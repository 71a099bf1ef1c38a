"""The high-water mark: a small file beside the database that says how far commits had come.

SQLite trusts its write-ahead log up to the first bad checksum and forgets the rest without a word. That is right for
the torn end of a commit that was never acknowledged, and wrong for a flipped bit in the middle, a log that was
deleted, or a copy put back from yesterday: acknowledged entries would be gone unnoticed. So after each
commit its number is written here, before any result is delivered. A database that ends before its mark has lost
acknowledged data, and is refused.

The mark is synced once a second, at the start and at the end, not with each commit: after a power cut it may be a
second too low, which only makes the check weaker. It is never too high, since it is written after the commit's fsync.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

__all__ = ["LINEAGE_BYTES", "Head", "HeadFile", "TrustedTimeFile", "open_private", "replace_private", "sync_path"]

_MARK = struct.Struct(">8s8sQQ32s32sI")
_MAGIC = b"RMCHEAD2"
LINEAGE_BYTES = 8


class Head(NamedTuple):
    """The end of the ledger.

    ``batch``: number of the last commit; ``seq`` and ``hash``: of the last entry; ``lineage``: `LINEAGE_BYTES` random
    bytes that name this history; ``seal``: SHA-256 over all of it and the tallies of all tables.
    """

    batch: int
    seq: int
    hash: bytes
    lineage: bytes
    seal: bytes


class HeadFile:
    """The mark's file, held open."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_private(path, os.O_RDWR)

    @staticmethod
    def read(path: Path) -> Head | None:
        """Return the mark; None where there is none or it cannot be read."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if len(data) != _MARK.size:
            return None
        magic, lineage, batch, seq, hashed, seal, crc = _MARK.unpack(data)
        if magic != _MAGIC or crc != zlib.crc32(data[:-4]):
            return None
        return Head(batch, seq, hashed, lineage, seal)

    def write(self, head: Head) -> None:
        """Raise the mark. One write of 100 bytes in place: it needs no new space on a full disk."""
        data = _MARK.pack(_MAGIC, head.lineage, head.batch, head.seq, head.hash, head.seal, 0)[:-4]
        os.pwrite(self._descriptor, data + zlib.crc32(data).to_bytes(4, "big"), 0)

    def sync(self) -> None:
        """Make the mark durable; OSError if the disk refuses."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def open_private(path: Path, flags: int) -> int:
    """Open a file, created if need be, that its owner alone may read, whatever the umask was; return its descriptor."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def sync_path(path: Path) -> None:
    """Make a file's content, or a directory's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_private(path: Path, data: bytes, *, is_durable: bool = True) -> None:
    """Replace the whole content of a file at once; at no moment can another user read it. OSError: the old one stays.

    ``is_durable``: the new content is on the disk when this returns. The draft is ``path`` with ``.new`` behind it.
    """
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)  # another user may have opened one that was left
    with open(open_private(draft, os.O_WRONLY | os.O_EXCL), "wb") as file:
        file.write(data)
        file.flush()
        if is_durable:
            os.fsync(file.fileno())
    draft.replace(path)
    if is_durable:
        sync_path(path.parent)


class TrustedTimeFile:
    """The last time at which the clock was trusted, Unix milliseconds, and for how many seconds it has been distrusted
    since, in a file of its own.

    Dates in the ledger cannot serve for this: a broker that was started under a wrong clock writes wrong dates.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[int, float]:
        """Return both; (0, 0) = there is nothing that can be read."""
        try:
            at_ms, held_s = self._path.read_text("ascii").split()
            return max(0, int(at_ms)), max(0.0, float(int(held_s)))
        except (OSError, ValueError):
            return 0, 0.0

    def write(self, at_ms: int, held_s: float) -> None:
        """Replace both. OSError if the disk refuses; the old ones stay."""
        replace_private(self._path, f"{at_ms} {held_s:.0f}".encode(), is_durable=False)
