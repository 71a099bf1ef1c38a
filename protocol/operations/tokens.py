"""Revocation of users' tokens: its records and row."""

from __future__ import annotations

from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import integer, optional, record, user_id
from .rows import OperationRow, RateLimit, Scope, row

__all__ = ["ROWS", "RevokeTokens", "TokensRevoked"]


class RevokeTokens(NamedTuple):
    """Tokens of a user, or of every user, issued before a time. ``issued_before_ms``: Unix milliseconds, 0 = now."""

    user: str | None = None
    issued_before_ms: int = 0


class TokensRevoked(NamedTuple):
    """Tokens issued before ``revoked_at_ms`` are revoked; ``links`` open connections were ended."""

    revoked_at_ms: int
    links: int


ROWS: tuple[OperationRow, ...] = (
    row(
        43, "users.revoke", RevokeTokens, (optional(user_id), integer(0)), TokensRevoked,
        record(TokensRevoked, (integer(0), integer(0))),
        "Revoke the tokens and tickets of a user, or of all users, that were issued before a time.",
        scope=Scope.USERS_WRITE, rate=RateLimit(50, 100), errors=(ErrorCode.OVERLOADED,),
        example=(RevokeTokens("ann"), TokensRevoked(1_800_000_000_000, 1)),
    ),
)  # fmt: skip
