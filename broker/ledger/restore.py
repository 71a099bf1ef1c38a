"""Make a ledger of a backup, or of one that was cut: it goes on as another history.

What the lost history has given out cannot be known: a client may hold an offset or an inbox number that is not in the
file. So a restored ledger has a new lineage: every open room begins a new epoch (with its phase and totals), and inbox
numbers continue far above the ones in the file. A client that resumes learns of a gap and gets a snapshot.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from broker.ledger.backup import copy_ledger
from broker.ledger.entries import LEDGER_RESTORED, Entry, LedgerCut, LedgerRefused, Submission
from broker.ledger.head import LINEAGE_BYTES, Head, HeadFile, sync_path
from broker.ledger.lock import lock_directory, unlock_directory
from broker.ledger.reader import Reader
from broker.ledger.schema import database_path, mark_path
from broker.ledger.store import Store

__all__ = ["Restored", "restore"]


class Restored(NamedTuple):
    """What a restore has done. ``lost``: what is known to be missing, in words, "" = nothing is known to be."""

    entries: int
    rooms: int
    lost: str


def restore(
    directory: Path,
    source: Path | None,
    *,
    accept_loss: bool = False,
    now_ms: int,
    new_epoch: Callable[[], int] = lambda: secrets.randbits(48),
) -> Restored:
    """Put the copy ``source`` into ``directory`` as its ledger; without one, let the ledger that is there begin another
    history. Blocks.

    ``accept_loss``: go on although the high-water mark names what is not in the file. LedgerRefused: the directory is
    in use, or holds a ledger already; LedgerCut: something acknowledged is missing and that was not accepted;
    LedgerDamaged: what is there is not what was written. Nothing is changed then.
    """
    lock = lock_directory(directory)
    try:
        path = database_path(directory)
        if source is None:
            lost = _check(path, HeadFile.read(mark_path(directory)), accept_loss)
            restored, head = _begin_history(path, now_ms, lost, new_epoch)
        else:
            if path.exists():
                raise LedgerRefused(f"{path}: is there already; move the files of {directory} away first")
            done: list[tuple[Restored, Head]] = []
            reader = Reader(source)
            try:
                reader.verify_all()
                copy_ledger(reader, path, lambda copy: done.append(_begin_history(copy, now_ms, "", new_epoch)))
            finally:
                reader.close()
            ((restored, head),) = done
        _write_mark(directory, head)
    finally:
        unlock_directory(lock)
    return restored


def _check(path: Path, mark: Head | None, accept_loss: bool) -> str:
    """Verify a ledger in place; return what is missing, in words."""
    lost = ""
    reader = Reader(path)
    try:
        with reader.snapshot() as row:
            is_copy = row.is_copy
        if not is_copy:
            try:
                reader.verify_tail(mark)
            except LedgerCut as error:
                if not accept_loss:
                    raise
                lost = error.lost
        reader.verify_all()
    finally:
        reader.close()
    return lost


def _begin_history(path: Path, now_ms: int, lost: str, new_epoch: Callable[[], int]) -> tuple[Restored, Head]:
    store = Store(path)
    try:
        body = json.dumps({"lost": lost}, ensure_ascii=False).encode()
        with store.maintain() as transaction:
            rooms = transaction.begin_lineage(os.urandom(LINEAGE_BYTES), new_epoch, now_ms)
            transaction.stage(Submission((Entry("", 0, None, LEDGER_RESTORED, now_ms, body),)), {})
            transaction.has_changed = True
        head = store.head
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        store.close()
    return Restored(head.seq, rooms, lost), head


def _write_mark(directory: Path, head: Head) -> None:
    marks = HeadFile(mark_path(directory))
    try:
        marks.write(head)
        marks.sync()
    finally:
        marks.close()
    sync_path(directory)
