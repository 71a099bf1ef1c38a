"""Helpers of the ledger's tests: directories, filled ledgers, and a disk that fails on request."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.ledger import Entry, Reader, database_path
from broker.ledger.entries import Submission
from broker.ledger.head import HeadFile
from broker.ledger.schema import mark_path
from broker.ledger.store import Store

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""A file system in memory, where fsync is free: for tests of what is written, not of the disk."""


@contextmanager
def quick_directory() -> Iterator[Path]:
    """Yield a new directory, in memory where possible."""
    with tempfile.TemporaryDirectory(prefix="ledger-", dir=MEMORY) as name:
        yield Path(name)


def event(number: int, room: str = "lobby", epoch: int = 7, at_ms: int = 1000) -> Submission:
    """Return a submission of one event whose body contains its number."""
    return Submission((Entry(room, epoch, 1, 4, at_ms, b"event %d" % number),))


def filled(directory: Path, events: int, *, per_commit: int = 10) -> Path:
    """Make a closed ledger with ``events`` events of one room and its mark; return the database's path."""
    path = database_path(directory)
    store = Store(path)
    for first in range(0, events, per_commit):
        store.commit([event(number) for number in range(first, min(first + per_commit, events))])
    write_mark(store)
    store.close()
    return path


def write_mark(store: Store) -> None:
    """Write the high-water mark beside a store, as the ledger's thread does after each commit."""
    marks = HeadFile(mark_path(store.path.parent))
    marks.write(store.head)
    marks.close()


def crashed_copy(directory: Path, target: Path) -> Path:
    """Copy the files as a killed process leaves them: database and log, without the shared memory."""
    target.mkdir()
    for path in directory.iterdir():
        if not path.name.endswith("-shm"):
            shutil.copy(path, target / path.name)
    return target


def bodies(path: Path) -> list[bytes]:
    """Return the bodies of all entries of a verified ledger."""
    reader = Reader(path)
    try:
        reader.verify_all()
        return [entry.body for entry, *_ in reader.entries()]
    finally:
        reader.close()


def disk_error(name: str) -> sqlite3.OperationalError:
    """Return an error as ``sqlite3`` raises it for the code ``name``."""
    error = sqlite3.OperationalError(f"made by a test: {name}")
    error.sqlite_errorname = name
    return error


class FaultyStore(Store):
    """Store whose commits fail (``fault``) or block (``stuck``) on request."""

    def __init__(self, path: Path) -> None:
        self.fault: sqlite3.Error | None = None
        self.reached = threading.Event()
        """Set by the first commit that begins after ``stuck`` was."""
        self._stuck: threading.Event | None = None
        super().__init__(path)

    @property
    def stuck(self) -> threading.Event | None:
        """What commits wait for; None = nothing."""
        return self._stuck

    @stuck.setter
    def stuck(self, stuck: threading.Event | None) -> None:
        self.reached.clear()  # the store was written when it was opened
        self._stuck = stuck

    def forget_a_commit(self) -> None:
        """Make the file one commit shorter than what was acknowledged."""
        self._head = self._head._replace(batch=self._head.batch + 1)

    def _finish(self) -> None:
        self.reached.set()
        if self.stuck is not None:
            assert self.stuck.wait(20)
        if self.fault is not None:
            raise self.fault
        super()._finish()
