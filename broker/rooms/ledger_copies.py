"""Directories of the copies that nodes have of the logs of their rooms: one a process, which goes with it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from broker.ledger import Store
from broker.ledger.lock import is_left

__all__ = ["COPY_PREFIX", "open_copy", "remove_left_copies"]

COPY_PREFIX = "copy-"
"""Beginning of the names of the directories of copies."""


def remove_left_copies(directory: Path) -> None:
    """Remove the copies of processes that were killed: no process holds their locks. Makes ``directory``."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in directory.glob(f"{COPY_PREFIX}*"):
        if is_left(path):
            shutil.rmtree(path, ignore_errors=True)


def open_copy(open_store: Callable[[Path], Store] | None, path: Path) -> Store:
    """Open the ledger of a copy; ids of its outbox are above a random number, so those of two nodes differ.

    Its commits do not wait for the disk: what is in it is in the engine, and no later start reads it.
    """
    store = (open_store or Store)(path)
    store.connection.execute("PRAGMA synchronous=OFF")
    with store.connection:
        store.connection.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
        store.connection.execute("INSERT INTO sqlite_sequence VALUES ('outbox', ?)", (secrets.randbits(52),))
    return store
