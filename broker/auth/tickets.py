"""The broker's own key, with which it signs tickets: random, made once, kept in the data directory for its next life.

Losing the file costs nothing but the tickets under way, so one that is broken is replaced. It is not a part of the
ledger's database, so that a copy of that gives nobody a key.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import structlog

from broker.ledger.head import sync_path

__all__ = ["FILE_NAME", "KEY_BYTES", "ticket_key"]

log = structlog.get_logger("roomcast.auth")

FILE_NAME = "ticket.key"
KEY_BYTES = 32


def ticket_key(directory: Path) -> bytes:
    """The key in ``directory``, made if there is none; only whoever holds the directory's lock may ask.

    Where the file can neither be read nor written, a key of this process alone, and a warning.
    """
    path = directory / FILE_NAME
    try:
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            return _make(path)
        if len(key) == KEY_BYTES:
            return key
        log.warning("the key for tickets is broken; making a new one", path=str(path))
        return _make(path)
    except OSError as error:
        log.warning("no key for tickets can be kept; they end with this process", path=str(path), why=error.strerror)
        return secrets.token_bytes(KEY_BYTES)


def _make(path: Path) -> bytes:
    """Write a new key: whole or not at all, and readable for nobody else at any moment."""
    key = secrets.token_bytes(KEY_BYTES)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
    sync_path(path.parent)
    return key
