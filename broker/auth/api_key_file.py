"""Changes of the key file of the control API: the whole file is replaced at once, and is durable when a change returns.

Programs of this machine that change it take turns by a lock of its directory. The functions read and write files: call
them in a thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.auth.api_keys import (
    ApiKey,
    KeyKnownError,
    key_table,
    new_key,
    new_secret,
    parse_keys,
    secret_text,
    without_key,
)
from broker.config.files import read_secret_text
from broker.ledger.head import replace_private
from protocol.operations import Scope

__all__ = ["add_key", "made_key", "remove_key"]


def made_key(
    id: str, scopes: frozenset[Scope], rooms: tuple[str, ...], tenant: str, note: str, expires_at: int, signs: bool
) -> tuple[ApiKey, str]:
    """Return a new key and its text, which nothing keeps. ``expires_at``: Unix seconds, 0 = never; ``signs``: for HTTP
    Message Signatures. KeyFileError names the field that is wrong."""
    shown, digest = new_key(id)
    secret = new_secret() if signs else b""
    key = ApiKey(id, b"" if signs else bytes.fromhex(digest), scopes, rooms, expires_at, note, tenant, secret)
    parse_keys(key_table(key), f"new key {id}")
    return key, secret_text(secret) if signs else shown


def add_key(path: Path, key: ApiKey) -> None:
    """Add a key to a key file, which is made if it is not there. KeyKnownError where it has one of this id; else
    KeyFileError, FileError or OSError. In any case the file is as it was."""
    with _locked(path) as file:
        text = read_secret_text(file) if file.exists() else ""
        if key.id in parse_keys(text, str(file)):
            raise KeyKnownError(f"{file}: has a key {key.id} already; take another id for the second key of a rotation")
        text += ("\n" if text and not text.endswith("\n") else "") + key_table(key)
        parse_keys(text, str(file))
        replace_private(file, text.encode())


def remove_key(path: Path, id: str) -> None:
    """Remove a key from a key file; all else in it stays. KeyFileError where it has none of this id, FileError or
    OSError, and the file is as it was."""
    with _locked(path) as file:
        replace_private(file, without_key(read_secret_text(file), id, str(file)).encode())


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Hold the lock of a file's directory; yields the file itself where ``path`` is a symbolic link to it."""
    file = path.resolve()
    descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(descriptor)
