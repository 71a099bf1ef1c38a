"""Revoked tokens: by user, or of all users of a tenant, everything that was issued before a time.

A token says when it was issued (``iat``, whole seconds); one that does not say it counts as issued before any time. No
revocation is ever undone or forgotten early: when a tenant has more than `MAX_USERS` of them, the oldest one holds for
all of its users, whose tokens of that age have mostly ended.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

__all__ = ["MAX_USERS", "Revocation", "RevocationTable", "erased_id"]

MAX_USERS = 20_000
"""Users of one tenant with a revocation of their own."""


_ERASED = "\x1e"


class Revocation(NamedTuple):
    """Tokens of ``user`` (plain id; "" = every user) of ``tenant`` issued before ``before_ms`` are revoked."""

    tenant: str
    user: str
    before_ms: int


def erased_id(tenant: str, user: str) -> str:
    """Return what stands for the id of an erased user: its digest, behind a control character that no id has."""
    return _ERASED + sha256(f"{tenant}\0{user}".encode()).hexdigest()[:32]


class RevocationTable:
    """All revocations. O(1) to ask."""

    def __init__(self, max_users: int = MAX_USERS) -> None:
        self._max_users = max_users
        self._by_tenant: dict[str, dict[str, int]] = {}
        self._with_erased: set[str] = set()
        """Tenants of which a user was erased."""

    def __len__(self) -> int:
        return sum(map(len, self._by_tenant.values()))

    def all(self) -> list[Revocation]:
        """Return every revocation."""
        return [Revocation(tenant, *each) for tenant, users in self._by_tenant.items() for each in users.items()]

    def is_revoked(self, tenant: str, user: str, issued_at_s: int) -> bool:
        """Return whether a token of a user, issued at that time (0 = it does not say), is revoked."""
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
