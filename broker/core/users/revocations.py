"""Revoked tokens: by user, or of all users of a tenant, everything that was issued before a time; or one token by its
id (``jti``).

A token says when it was issued (``iat``, whole seconds); one that does not say it counts as issued before any time. No
revocation is ever undone or forgotten early: when a tenant has more than `MAX_USERS` of them, the oldest one holds for
all of its users, whose tokens of that age have mostly ended. A token that is revoked by its id is kept until it has
ended; above `MAX_TOKENS` of a tenant no other is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from heapq import heappop, heappush
from typing import NamedTuple

__all__ = ["MAX_TOKENS", "MAX_USERS", "Revocation", "RevocationTable", "RevokedToken", "TooManyTokens", "erased_id"]

MAX_USERS = 20_000
"""Users of one tenant with a revocation of their own."""
MAX_TOKENS = 100_000
"""Tokens of one tenant that are revoked by their ids and have not ended; about 20 MB."""

_ERASED = "\x1e"


class Revocation(NamedTuple):
    """Tokens of ``user`` (plain id; "" = every user) of ``tenant`` issued before ``before_ms`` are revoked."""

    tenant: str
    user: str
    before_ms: int


class RevokedToken(NamedTuple):
    """The token with the id (``jti``) of ``tenant`` is revoked; it is kept until ``ends_ms`` (Unix milliseconds)."""

    tenant: str
    jti: str
    ends_ms: int


class TooManyTokens(Exception):
    """The tenant has `MAX_TOKENS` revoked tokens that have not ended."""


def erased_id(tenant: str, user: str) -> str:
    """Return what stands for the id of an erased user: its digest, behind a control character that no id has."""
    return _ERASED + sha256(f"{tenant}\0{user}".encode()).hexdigest()[:32]


class RevocationTable:
    """All revocations. O(1) to ask."""

    def __init__(self, max_users: int = MAX_USERS, max_tokens: int = MAX_TOKENS) -> None:
        self._max_users = max_users
        self._max_tokens = max_tokens
        self._by_tenant: dict[str, dict[str, int]] = {}
        self._with_erased: set[str] = set()
        """Tenants of which a user was erased."""
        self._tokens: dict[str, dict[str, int]] = {}
        """When each revoked token ends, by tenant and id."""
        self._ends: list[tuple[int, str, str]] = []
        """Heap of the ends of revoked tokens; an entry whose token has another end by now is ignored."""

    def __len__(self) -> int:
        return sum(map(len, self._by_tenant.values())) + sum(map(len, self._tokens.values()))

    def all(self) -> list[Revocation]:
        """Return every revocation."""
        return [Revocation(tenant, *each) for tenant, users in self._by_tenant.items() for each in users.items()]

    def tokens(self) -> list[RevokedToken]:
        """Return every token that is revoked by its id."""
        return [RevokedToken(tenant, *each) for tenant, ends in self._tokens.items() for each in ends.items()]

    def is_revoked(self, tenant: str, user: str, issued_at_s: int, jti: str = "") -> bool:
        """Return whether a token of a user, issued at that time (0 = it does not say), is revoked. ``jti``: its id,
        "" = it has none."""
        if jti and jti in self._tokens.get(tenant, ()):
            return True
        users = self._by_tenant.get(tenant)
        if users is None:
            return False
        issued_ms = issued_at_s * 1000
        if issued_ms < users.get("", 0) or issued_ms < users.get(user, 0):
            return True
        return tenant in self._with_erased and issued_ms < users.get(erased_id(tenant, user), 0)

    def erase(self, tenant: str, user: str, before_ms: int) -> Revocation:
        """Forget the revocation of a user; return one of the same tokens, and of all issued before ``before_ms``, that
        names only its digest, to be added."""
        before = self._by_tenant.get(tenant, {}).pop(user, 0)
        return Revocation(tenant, erased_id(tenant, user), max(before, before_ms))

    def revoke(self, revocation: Revocation) -> tuple[list[Revocation], list[Revocation]]:
        """Add a revocation; return what holds from now on and did not before, and what is now part of something else.

        An earlier time for the same user changes nothing.
        """
        users = self._by_tenant.setdefault(revocation.tenant, {})
        if revocation.user.startswith(_ERASED):
            self._with_erased.add(revocation.tenant)
        if revocation.before_ms <= max(users.get("", 0), users.get(revocation.user, 0)):
            return [], []
        users[revocation.user] = revocation.before_ms
        added = [revocation]
        if len(users) - ("" in users) > self._max_users:
            oldest = min(before for user, before in users.items() if user)
            users[""] = max(oldest, users.get("", 0))
            added.append(Revocation(revocation.tenant, "", users[""]))
        covered = [user for user, before in users.items() if user and before <= users.get("", 0)]
        removed = [Revocation(revocation.tenant, user, users.pop(user)) for user in covered]
        return [each for each in added if each not in removed], removed

    def revoke_token(self, token: RevokedToken, now_ms: int) -> tuple[list[RevokedToken], list[RevokedToken]]:
        """Revoke one token; return what is to be recorded, and the tokens that have ended by now and are forgotten.

        One that has ended is not recorded; of two ends the later one holds. TooManyTokens if the tenant has no space.
        """
        ended = self.end_tokens(now_ms)
        known = self._tokens.get(token.tenant, {})
        if token.ends_ms <= now_ms:
            return [], ended
        if len(known) >= self._max_tokens and token.jti not in known:
            raise TooManyTokens
        token = token._replace(ends_ms=max(token.ends_ms, known.get(token.jti, 0)))
        self.restore_tokens([token])
        return [token], ended

    def restore_tokens(self, tokens: Iterable[RevokedToken]) -> None:
        """Add tokens that were revoked in an earlier run."""
        for token in tokens:
            self._tokens.setdefault(token.tenant, {})[token.jti] = token.ends_ms
            heappush(self._ends, (token.ends_ms, token.tenant, token.jti))

    def end_tokens(self, now_ms: int) -> list[RevokedToken]:
        """Forget the tokens that have ended; return them."""
        ended = []
        while self._ends and self._ends[0][0] <= now_ms:
            ends_ms, tenant, jti = heappop(self._ends)
            tokens = self._tokens.get(tenant, {})
            if tokens.get(jti) == ends_ms:
                del tokens[jti]
                ended.append(RevokedToken(tenant, jti, ends_ms))
        return ended
