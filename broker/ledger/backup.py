"""A verified copy of the ledger, made while the writer goes on."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from broker.ledger.entries import FailureKind, LedgerDamaged, LedgerRefused
from broker.ledger.head import open_private, sync_path
from broker.ledger.reader import Reader
from broker.ledger.rows import read_head, write_head
from broker.ledger.schema import connect, failure_kind_of

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

    It is written anew from what the ledger holds, as it is when this is called: nothing that was removed or replaced
    comes with it, as it would by a copy of the file. The copy is made under another name, changed by ``finish(path)``,
    verified, synced, and then renamed, so that ``target`` is a complete ledger or does not exist. Errors as in
    `back_up`.
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
        source = connect(reader.path, readonly=True)
        try:
            source.execute("PRAGMA query_only=OFF")  # it counts the copy as a change of the database
            source.execute("VACUUM INTO ?", (str(unfinished),))
        except sqlite3.Error as error:
            if failure_kind_of(error) is FailureKind.DAMAGED:
                raise LedgerDamaged(f"{reader.path}: {error}") from error
            raise LedgerRefused(f"{target}: cannot be written: {error}") from error
        finally:
            source.close()
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
