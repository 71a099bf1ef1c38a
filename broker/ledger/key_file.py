"""The file of keys with which the ledger is encrypted.

One key a line, 64 hexadecimal digits; what follows ``#`` is a comment. The first key encrypts; the others decrypt what
was encrypted before them. A key is named by its *id*, which is a hash of it: so no file can give a key the id of
another.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import NamedTuple

from broker.config.files import FileError, read_secret_text, user_path
from broker.ledger.head import replace_private

__all__ = ["KEY_BYTES", "KEY_ID_BYTES", "MAX_KEYS", "LedgerKey", "LedgerKeys", "rotate_key_file"]

KEY_BYTES = 32
KEY_ID_BYTES = 8
MAX_KEYS = 100
"""Keys of one file."""
_TITLE = "# Keys of roomcast's ledger. The first encrypts, the others decrypt what was encrypted before. Keep a copy.\n"


class LedgerKey(NamedTuple):
    """One key."""

    id: bytes
    secret: bytes

    @classmethod
    def of(cls, secret: bytes) -> LedgerKey:
        """Return the key with this secret."""
        return cls(hmac.digest(secret, b"roomcast ledger key id", hashlib.sha256)[:KEY_ID_BYTES], secret)

    def __repr__(self) -> str:
        return f"LedgerKey({self.id.hex()})"


class LedgerKeys:
    """The keys of a file. ``source``: its name, for what is raised. Never changed once made."""

    __slots__ = ("_by_id", "current", "source")

    def __init__(self, keys: tuple[LedgerKey, ...], source: str) -> None:
        self.current = keys[0]
        """The key that encrypts."""
        self.source = source
        self._by_id = {key.id: key for key in keys}

    @classmethod
    def read(cls, name: str | Path) -> LedgerKeys:
        """Read a file of keys. FileError, in one line, where it cannot be used, or other users can read it."""
        keys = []
        for number, line in enumerate(read_secret_text(name).split("\n"), 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            try:
                secret = bytes.fromhex(text)
            except ValueError:
                secret = b""
            if len(secret) != KEY_BYTES:
                raise FileError(str(name), f"line {number} is no key of {2 * KEY_BYTES} hexadecimal digits")
            keys.append(LedgerKey.of(secret))
        if not keys:
            raise FileError(str(name), "has no key: `roomcast ledger rotate-key` makes one")
        if len(keys) > MAX_KEYS:
            raise FileError(str(name), f"has {len(keys)} keys, at most {MAX_KEYS} are read")
        return cls(tuple(keys), str(name))

    @property
    def ids(self) -> tuple[bytes, ...]:
        """Ids of all keys, the one that encrypts first."""
        return tuple(self._by_id)

    def find(self, key_id: bytes) -> LedgerKey | None:
        """Return the key with this id."""
        return self._by_id.get(key_id)


def rotate_key_file(name: str | Path) -> LedgerKeys:
    """Put a new key before those of a file, which is made if it is not there; return the keys.

    The file is replaced at once and is its owner's alone. FileError, OSError: it stays as it was.
    """
    path = user_path(name)
    lines = ""
    if path.exists():
        if len(LedgerKeys.read(name).ids) >= MAX_KEYS:
            raise FileError(str(name), f"has {MAX_KEYS} keys: remove the oldest ones that nothing needs")
        lines = read_secret_text(name).removeprefix(_TITLE)
    replace_private(path, f"{_TITLE}{secrets.token_hex(KEY_BYTES)}\n{lines}".encode())
    return LedgerKeys.read(name)
