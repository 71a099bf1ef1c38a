"""Encryption of what the ledger stores: bodies are encrypted as they are written and decrypted as they are read.

An *encrypted* body is ``C1 01``, the id of the key (8 bytes), a salt (16), a nonce (12), and the ciphertext of
AES-256-GCM with its tag (16). One that is not encrypted and begins with C1 itself, which neither MessagePack nor UTF-8
does, has ``C1 00`` in front. The name of the table is authenticated, so that a body of one table is none of another.

A nonce must never serve twice under one key. The keys of the file encrypt nothing themselves: from one of them and a
random salt a *data key* is derived (HMAC-SHA-256), and a data key encrypts `BODIES_PER_DATA_KEY` bodies at most, each
with a random nonce of 96 bits: the chance that two of them are equal is below 2^-57 a data key, and no two salts of 128
bits are. There is no counter that a restored snapshot of a disk or a virtual machine could set back.

Encrypted are bodies, totals and answers. Names of rooms and users, times, numbers and kinds are not: rows are found by
them. Checksums and the hash chain cover what is stored, so that a ledger is verified without a key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import OrderedDict

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.ledger.entries import LedgerDamaged, LedgerRefused
from broker.ledger.key_file import KEY_ID_BYTES, LedgerKey, LedgerKeys

__all__ = ["ENCRYPTED", "KEY_KIND", "OVERHEAD_BYTES", "BodyCipher", "key_of", "mark_of"]

KEY_KIND = "ledger.key"
"""Kind of the records that name the keys with which bodies were encrypted; the subject is the id of the key."""
ENCRYPTED = {
    "entries": "body",
    "checkpoints": "totals",
    "keys": "answer",
    "directs": "body",
    "outbox": "body",
    "records": "body",
}
"""The column of each table that is encrypted."""
BODIES_PER_DATA_KEY = 1 << 20
MAX_DATA_KEYS = 256
"""Data keys that are remembered for reading; others are derived again, some microseconds each."""
_ANY = b"\xc1"
_MARK = _ANY + b"\x01"
_PLAIN = _ANY + b"\x00"
_SALT_BYTES = 16
_NONCE_BYTES = 12
_KEY_END = len(_MARK) + KEY_ID_BYTES
_SALT_END = _KEY_END + _SALT_BYTES
_HEADER_END = _SALT_END + _NONCE_BYTES
OVERHEAD_BYTES = _HEADER_END + 16
"""Bytes of an encrypted body beyond those of the body."""


def mark_of(key_id: bytes) -> bytes:
    """Return the first bytes of every body that a key has encrypted."""
    return _MARK + key_id


def key_of(stored: bytes) -> bytes | None:
    """Return the id of the key that has encrypted a stored body, None = it is not encrypted."""
    return stored[len(_MARK) : _KEY_END] if stored.startswith(_MARK) else None


class BodyCipher:
    """Encrypts and decrypts the bodies of one connection; used by one thread at a time. Without keys it encrypts
    nothing, and refuses what is encrypted.

    `use` may be called by any thread. ``path``: of the ledger, for what is raised.
    """

    __slots__ = ("_data_key", "_data_keys", "_head", "_keys", "_keys_in_use", "_left", "_path", "used")

    def __init__(self, path: object, keys: LedgerKeys | None = None) -> None:
        self._path = path
        self._keys = keys
        self._keys_in_use: LedgerKeys | None = None
        self._data_key = AESGCM(bytes(32))
        self._head = b""
        self._left = 0
        self._data_keys: OrderedDict[bytes, AESGCM] = OrderedDict()
        self.used: set[bytes] = set()
        """Ids of the keys with which it has encrypted."""

    @property
    def keys(self) -> LedgerKeys | None:
        """The keys in use."""
        return self._keys

    def has(self, key_id: bytes) -> bool:
        """Return whether a key is there."""
        return self._keys is not None and self._keys.find(key_id) is not None

    def use(self, keys: LedgerKeys | None) -> None:
        """Encrypt with the first of these keys from now on."""
        self._keys = keys

    def encrypt(self, table: str, body: bytes) -> bytes:
        """Return a body of a table as it is stored. An empty one stays empty."""
        keys = self._keys
        if keys is None or not body:
            return _PLAIN + body if body.startswith(_ANY) else body
        if keys is not self._keys_in_use or not self._left:
            self._renew(keys)
        self._left -= 1
        nonce = os.urandom(_NONCE_BYTES)
        return self._head + nonce + self._data_key.encrypt(nonce, body, table.encode())

    def _renew(self, keys: LedgerKeys) -> None:
        """Derive another data key to encrypt with."""
        key, salt = keys.current, os.urandom(_SALT_BYTES)
        self._data_key = _data_key(key, salt)
        self._head = mark_of(key.id) + salt
        self._keys_in_use = keys
        self._left = BODIES_PER_DATA_KEY
        self.used.add(key.id)

    def decrypt(self, table: str, stored: bytes) -> bytes:
        """Return a stored body of a table as it was written.

        LedgerRefused where its key is not among the keys, LedgerDamaged where it is not what was encrypted.
        """
        if not stored.startswith(_ANY):
            return stored
        if stored.startswith(_PLAIN):
            return stored[len(_PLAIN) :]
        place = stored[len(_MARK) : _SALT_END]
        data_key = self._data_keys.get(place) or self._find(place)
        try:
            return data_key.decrypt(stored[_SALT_END:_HEADER_END], stored[_HEADER_END:], table.encode())
        except (InvalidTag, ValueError) as error:
            raise LedgerDamaged(f"{self._path}: a body of {table} is not what was encrypted") from error

    def _find(self, place: bytes) -> AESGCM:
        """Derive the data key of a key's id and salt."""
        key_id, salt = place[:KEY_ID_BYTES], place[KEY_ID_BYTES:]
        key = None if self._keys is None else self._keys.find(key_id)
        if key is None:
            raise self.refusal(key_id)
        found = self._data_keys[place] = _data_key(key, salt)
        if len(self._data_keys) > MAX_DATA_KEYS:
            self._data_keys.popitem(last=False)
        return found

    def refusal(self, key_id: bytes) -> LedgerRefused:
        """Return what to raise where a key is missing."""
        if self._keys is None:
            rule = "set ledger.key_file, or give the command the option of its key file"
        else:
            rule = f"{self._keys.source} does not have that key: put the right file, or the key, back"
        return LedgerRefused(f"{self._path}: is encrypted with key {key_id.hex()}: {rule}")


def _data_key(key: LedgerKey, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key.secret, b"roomcast ledger data key\0" + salt, hashlib.sha256))
