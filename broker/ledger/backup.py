"""A verified copy of the ledger, made while the writer goes on."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from broker.ledger.entries import LedgerRefused
from broker.ledger.head import open_private, sync_path
from broker.ledger.reader import Reader
from broker.ledger.rows import read_head, write_head

__all__ = ["back_up", "copy_ledger"]


def back_up(reader: Reader, target: Path) -> int:
    """Copy the ledger that ``reader`` has open to ``target``; return the size of the copy in bytes.

    The copy is marked as one: no broker writes to it before `broker.ledger.restore` has made a ledger of it. Blocks.

    LedgerRefused if ``target`` exists or cannot be written; LedgerDamaged if the copy does not verify.
    """

    def mark(unfinished: Path) -> None:
        connection = sqlite3.connect(unfinished, isolation_level=None)
        try:
            write_head(connection, read_head(connection, str(unfinished))._replace(is_copy=1))
        finally:
            connection.close()

    copy_ledger(reader, target, mark)
    return target.stat().st_size


def copy_ledger(reader: Reader, target: Path, finish: Callable[[Path], object]) -> None:
    """Copy the ledger that ``reader`` has open to ``target``.

    It is copied in one step: SQLite begins again whenever the writer commits between two. The copy is made under
    another name, changed by ``finish(path)``, verified, synced, and then renamed, so that ``target`` is a complete
    ledger or does not exist. Errors as in `back_up`.
    """
    if target.exists():
        raise LedgerRefused(f"{target}: is there already")
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        try:
            os.close(open_private(unfinished, os.O_WRONLY))
        except OSError as error:
            raise LedgerRefused(f"{target}: cannot be written: {error.strerror}") from error
        try:
            copy = sqlite3.connect(unfinished, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise LedgerRefused(f"{target}: cannot be written: {error}") from error
        try:
            reader.connection.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
        finish(unfinished)
        verifier = Reader(unfinished)
        try:
            verifier.verify_all()
        finally:
            verifier.close()
        sync_path(unfinished)
        unfinished.rename(target)
    finally:
        for suffix in ("", "-wal", "-shm"):
            unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
    sync_path(target.absolute().parent)
