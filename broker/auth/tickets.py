"""Tickets: the broker's own tokens, with which a client reconnects without asking the platform for a new token.

A ticket holds the same grant with the same end, for a shorter time. It is signed with a key derived from the broker's
key and the platform's secret (a new secret ends the tickets made under the old one), and has an audience and a header
of its own: a ticket is never taken for a token, nor a token for a ticket. Guests and development identities get none.

The broker's keys are random and kept in the data directory (`broker.auth.ticket_keys`); one signs, and the ones it
replaced verify until their last ticket has ended.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from typing import Any

from broker.auth.grants import AuthError, Grant, GrantReader, entry_claim
from broker.auth.jws import BadToken, Hs256Key
from broker.auth.ticket_keys import TicketKeys

__all__ = ["MAX_TOKEN_BYTES", "Tickets", "derived_key"]

MAX_TOKEN_BYTES = 4000
"""Cap of tokens and tickets, checked before anything is parsed; the same as that of the AUTH message."""


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
        self.use_keys(TicketKeys.new())

    def use_keys(self, keys: TicketKeys) -> None:
        """Sign and verify with these keys of the broker from now on; before the first call they are random ones."""
        self._key, *replaced = (Hs256Key(derived_key(key.secret, self._secret)) for key in keys.keys)
        self._replaced = tuple(
            (each, key.ends_at_ms / 1000)
            for each, key in zip(replaced, keys.keys[1:], strict=True)
            if key.ends_at_ms is not None
        )
        """Keys that only verify, each with the Unix seconds until which it does."""
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
                **({"jti": grant.jti} if grant.jti else {}),
                **({"tags": list(grant.tags)} if grant.tags else {}),
                **({"account_created": grant.account_created} if grant.account_created else {}),
            },
        )
        return (ticket, (ends - now_s) * 1000) if len(ticket) <= MAX_TOKEN_BYTES else ("", 0)

    def verify(self, ticket: str, now_s: float) -> Grant:
        """Return the grant of a valid ticket of this broker; AuthError otherwise. As quick as a token."""
        claims = self._claims(ticket, now_s)
        if claims.get("aud") != self._audience:
            raise AuthError("ticket is for another broker")
        if claims["exp"] <= now_s:
            raise AuthError("ticket has expired")
        return self._grants.read({**claims, "exp": claims["ends"]})

    def _claims(self, ticket: str, now_s: float) -> Any:
        """Return the claims of a ticket that one of the keys has signed; Any: JSON."""
        try:
            return self._key.body(ticket)
        except BadToken as error:
            for key, ends_at_s in self._replaced:
                if ends_at_s > now_s:
                    with suppress(BadToken):
                        return key.body(ticket)
            raise AuthError(f"ticket is not valid: {error}") from None
