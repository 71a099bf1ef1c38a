"""Tickets: the broker's own tokens, with which a client reconnects without asking the platform for a new token.

A ticket holds the same grant with the same end, for a shorter time. It is signed with a key derived from the broker's
key and the platform's secret (a new secret ends the tickets made under the old one), and has an audience and a header
of its own: a ticket is never taken for a token, nor a token for a ticket. Guests and development identities get none.

The broker's key is random, made once and kept in the data directory. If the file is lost, only the tickets in use end.
It is not part of the ledger's database, so that a copy of the database holds no key.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

import structlog

from broker.auth.grants import AuthError, Grant, GrantReader, entry_claim
from broker.auth.jws import BadToken, Hs256Key
from broker.ledger.head import sync_path

__all__ = ["FILE_NAME", "KEY_BYTES", "MAX_TOKEN_BYTES", "Tickets", "derived_key", "ticket_key"]

log = structlog.get_logger("roomcast.auth")

MAX_TOKEN_BYTES = 4000
"""Cap of tokens and tickets, checked before anything is parsed; the same as that of the AUTH message."""
FILE_NAME = "ticket.key"
KEY_BYTES = 32


def ticket_key(directory: Path) -> bytes:
    """Return the key in ``directory``; make it if there is none, or if others could read it. The caller holds the lock
    of the directory.

    If the file can neither be read nor written: a key of this process alone, and a warning.
    """
    path = directory / FILE_NAME
    try:
        try:
            key, mode = path.read_bytes(), path.stat().st_mode
        except FileNotFoundError:
            return _make(path)
        if mode & 0o077:
            log.warning("other users had access to the key for tickets; making a new one", path=str(path))
        elif len(key) == KEY_BYTES:
            return key
        else:
            log.warning("the key for tickets is broken; making a new one", path=str(path))
        return _make(path)
    except OSError as error:
        log.warning("no key for tickets can be kept; they end with this process", path=str(path), why=error.strerror)
        return secrets.token_bytes(KEY_BYTES)


def _make(path: Path) -> bytes:
    """Write a new key atomically; at no moment can another user read it."""
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


def derived_key(key: bytes, secret: bytes) -> bytes:
    """Return the key that signs tickets, from the broker's own key and the platform's secret."""
    return hmac.digest(key, b"ticket\0" + secret, "sha256")


class Tickets:
    """Issues and verifies tickets. ``lifetime_s``: 0 = none are issued; ``audience``: of the platform's tokens."""

    def __init__(self, secret: bytes, audience: str, lifetime_s: float, grants: GrantReader) -> None:
        self._secret = secret
        self._audience = f"ticket:{audience}"
        self._lifetime_s = int(lifetime_s)
        self._grants = grants
        self.are_issued = lifetime_s > 0
        """Whether connections may have tickets at all."""
        self._header = ""
        """How every ticket begins; "" = none are issued."""
        self.use_key(secrets.token_bytes(KEY_BYTES))

    def use_key(self, key: bytes) -> None:
        """Sign with this key of the broker from now on; before the first call the key is a random one."""
        self._key = Hs256Key(derived_key(key, self._secret))
        if self.are_issued:
            self._header = self._key.header(typ="ticket")

    def is_ticket(self, token: str) -> bool:
        """Return whether ``token`` begins as a ticket does."""
        return self._header != "" and token.startswith(self._header)

    def issue(self, grant: Grant, now_s: int) -> tuple[str, int]:
        """Return a ticket for ``grant`` and its lifetime in milliseconds; ("", 0) if there is none. About 10 us.

        It never ends after the grant, and a grant that came by a ticket ends when the first one did.
        """
        ends = min(now_s + self._lifetime_s, grant.expires_at)
        if ends <= now_s or not self.are_issued:
            return "", 0
        ticket = self._key.sign(
            self._header,
            {
                "aud": self._audience,
                "exp": ends,
                "ends": grant.expires_at,
                "sub": grant.plain_id,
                "name": grant.name,
                "role": grant.role.name.lower(),
                "rooms": [entry_claim(entry) for entry in grant.rooms],
                "tenant": grant.tenant,
                **({"iat": grant.issued_at} if grant.issued_at else {}),
            },
        )
        return (ticket, (ends - now_s) * 1000) if len(ticket) <= MAX_TOKEN_BYTES else ("", 0)

    def verify(self, ticket: str, now_s: float) -> Grant:
        """Return the grant of a valid ticket of this broker; AuthError otherwise. As quick as a token."""
        try:
            claims = self._key.body(ticket)
        except BadToken as error:
            raise AuthError(f"ticket is not valid: {error}") from None
        if claims.get("aud") != self._audience:
            raise AuthError("ticket is for another broker")
        if claims["exp"] <= now_s:
            raise AuthError("ticket has expired")
        return self._grants.read({**claims, "exp": claims["ends"]})
