"""The lock of a data directory: one process at a time writes to it."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from broker.ledger.entries import LedgerRefused
from broker.ledger.head import open_private, sync_path
from broker.ledger.privacy import make_private

__all__ = ["is_left", "lock_directory", "unlock_directory"]


def lock_directory(directory: Path) -> int:
    """Take a data directory for this process, created if need be; return the descriptor that holds the lock.

    LedgerRefused if another process has it or it cannot be written.
    """
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_path(directory.absolute().parent)
        descriptor = open_private(directory / "ledger.lock", os.O_RDWR)
    except OSError as error:
        raise LedgerRefused(f"{directory}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        why = f"{directory}: is in use by process {holder}; each broker needs a data directory of its own"
        raise LedgerRefused(why) from error
    make_private(directory)
    with suppress(OSError):  # a full disk: who holds the lock cannot be read then, no more
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def unlock_directory(descriptor: int) -> None:
    """Release the lock; a number that stays in its file names a process that was killed."""
    os.ftruncate(descriptor, 0)
    os.close(descriptor)


def is_left(directory: Path) -> bool:
    """Return whether a data directory was locked once, and is by no process now."""
    try:
        descriptor = os.open(directory / "ledger.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
