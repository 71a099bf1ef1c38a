"""Keys of the broker for tickets, in a file of the data directory, and their rotation.

The first key signs; a key that was replaced verifies until the last ticket made with it has ended, over restarts too.
The file also holds a base key that is never replaced, from which ids of events and guests are derived. It is not part
of the ledger's database, so that a copy of the database holds no key. If the file is missing, only the tickets in use
end.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import structlog
import trio

from broker.ledger.head import replace_private

__all__ = ["FILE_NAME", "KEY_BYTES", "MAX_KEYS", "TicketKey", "TicketKeyFile", "TicketKeys"]

log = structlog.get_logger("roomcast.auth")

FILE_NAME = "ticket.key"
KEY_BYTES = 32
MAX_KEYS = 8
"""Most keys at a time, the signing one included."""
VERSION = 1


class TicketKey(NamedTuple):
    """One key. ``longest_ms``: lifetime of the longest ticket that it may have signed; ``ends_at_ms``: Unix time until
    which it verifies, None = it is the one that signs."""

    secret: bytes
    longest_ms: int = 0
    ends_at_ms: int | None = None


class TicketKeys(NamedTuple):
    """All keys for tickets; the first one signs."""

    base: bytes
    keys: tuple[TicketKey, ...]

    @classmethod
    def new(cls, base: bytes | None = None) -> TicketKeys:
        """Return keys with one that signs: ``base`` itself, or random ones."""
        if base is None:
            return cls(secrets.token_bytes(KEY_BYTES), (TicketKey(secrets.token_bytes(KEY_BYTES)),))
        return cls(base, (TicketKey(base),))

    def signing_for(self, lifetime_ms: int) -> TicketKeys:
        """Return the keys where the first one signs tickets of this lifetime."""
        first = self.keys[0]
        return self._replace(keys=(first._replace(longest_ms=max(first.longest_ms, lifetime_ms)), *self.keys[1:]))

    def rotated(self, secret: bytes, now_ms: int, lifetime_ms: int) -> TicketKeys:
        """Return the keys where ``secret`` signs tickets of this lifetime, and the one before verifies until its last
        ticket has ended; keys whose tickets have all ended are removed."""
        first = self.keys[0]
        replaced = first._replace(ends_at_ms=now_ms + max(first.longest_ms, lifetime_ms))
        others = (key for key in self.keys[1:] if key.ends_at_ms is not None and key.ends_at_ms > now_ms)
        return self._replace(keys=(TicketKey(secret, lifetime_ms), replaced, *others))

    def wait_ms(self, now_ms: int) -> int:
        """Return when the keys can be rotated, in milliseconds from now: 0 = at once, unless there are `MAX_KEYS`."""
        ends = sorted(key.ends_at_ms for key in self.keys[1:] if key.ends_at_ms is not None and key.ends_at_ms > now_ms)
        return 0 if len(ends) + 2 <= MAX_KEYS else ends[0] - now_ms

    def encode(self) -> bytes:
        """Return the content of the file."""
        keys = [[key.secret.hex(), key.longest_ms, key.ends_at_ms] for key in self.keys]
        return json.dumps({"version": VERSION, "base": self.base.hex(), "keys": keys}).encode()

    @classmethod
    def decode(cls, content: bytes) -> TicketKeys:
        """Return the keys of the content of a file, also of one that is a single key of `KEY_BYTES` bytes; ValueError
        where it is neither."""
        if len(content) == KEY_BYTES:
            return cls.new(content)
        try:
            fields = json.loads(content)
            if fields["version"] != VERSION:
                raise ValueError("is of another version")
            first, *others = (_read_key(*each) for each in fields["keys"])
            base = _read_secret(fields["base"])
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError("is no file of keys") from error
        if first.ends_at_ms is not None or any(each.ends_at_ms is None for each in others) or len(others) >= MAX_KEYS:
            raise ValueError("has keys out of order")
        return cls(base, (first, *others))


def _read_secret(text: Any) -> bytes:
    """Any: JSON."""
    secret = bytes.fromhex(text)
    if len(secret) != KEY_BYTES:
        raise ValueError("has a key of another size")
    return secret


def _read_key(secret: Any, longest_ms: Any, ends_at_ms: Any) -> TicketKey:
    if type(longest_ms) is not int or not (ends_at_ms is None or type(ends_at_ms) is int):
        raise ValueError("has a time that is none")
    return TicketKey(_read_secret(secret), longest_ms, ends_at_ms)


class TicketKeyFile:
    """The file of keys in ``directory``. ``lifetime_s``: of the tickets of this broker; ``use``: gets the keys whenever
    they change. The caller holds the lock of the directory."""

    def __init__(self, directory: Path, lifetime_s: float, use: Callable[[TicketKeys], None]) -> None:
        self._path = directory / FILE_NAME
        self._lifetime_ms = round(lifetime_s * 1000)
        self._use = use
        self._rotating = trio.Lock()
        self._keys = TicketKeys.new()

    def load(self) -> TicketKeys:
        """Use the keys in the file; make new ones if there are none, or if other users could read them.

        If the file can neither be read nor written: keys of this process alone, and a warning.
        """
        keys = TicketKeys.new().signing_for(self._lifetime_ms)
        try:
            found = self._read()
            if found is not None:
                keys = found.signing_for(self._lifetime_ms)
            if keys != found:
                replace_private(self._path, keys.encode())
        except OSError as error:
            path, why = str(self._path), error.strerror
            log.warning("no key for tickets can be kept; they end with this process", path=path, why=why)
        self._keys = keys
        self._use(keys)
        return keys

    async def rotate(self, now_ms: int) -> TicketKeys | int:
        """Sign with a new key from now on, once it is durable, and return the keys; or return the milliseconds to wait
        where there are as many as may be. OSError, with the key as before, where the file cannot be written."""
        async with self._rotating:
            wait_ms = self._keys.wait_ms(now_ms)
            if wait_ms:
                return wait_ms
            keys = self._keys.rotated(secrets.token_bytes(KEY_BYTES), now_ms, self._lifetime_ms)
            await trio.to_thread.run_sync(replace_private, self._path, keys.encode())
            self._keys = keys
            self._use(keys)
        log.info("the key for tickets was rotated", keys=len(keys.keys))
        return keys

    def _read(self) -> TicketKeys | None:
        try:
            content, mode = self._path.read_bytes(), self._path.stat().st_mode
        except FileNotFoundError:
            return None
        path = str(self._path)
        if mode & 0o077:
            log.warning("other users had access to the key for tickets; making a new one", path=path)
            return None
        try:
            return TicketKeys.decode(content)
        except ValueError:
            log.warning("the key for tickets is broken; making a new one", path=path)
            return None
