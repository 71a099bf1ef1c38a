"""A verified copy of the ledger, made while the writer goes on."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from broker.ledger.entries import LedgerRefused
from broker.ledger.head import open_private, sync_path
from broker.ledger.reader import Reader

__all__ = ["back_up"]


def back_up(reader: Reader, target: Path) -> int:
    """Copy the ledger that ``reader`` has open to ``target``; return the size of the copy in bytes.

    The copy is made under another name, verified, synced, and then renamed, so that ``target`` is a complete ledger or
    does not exist. The copy is one step: SQLite begins again whenever the writer commits between two steps. Blocks.

    LedgerRefused if ``target`` exists or cannot be written; LedgerDamaged if the copy does not verify.
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
    return target.stat().st_size
