"""Revocation of users' tokens: its records and row."""

from __future__ import annotations

from typing import NamedTuple

from ..codes import ErrorCode
from ..fields import integer, optional, record, text, user_id
from .rows import OperationRow, RateLimit, Scope, row

__all__ = ["MAX_TOKEN_ID_CHARS", "ROWS", "RevokeTokens", "TokensRevoked"]

MAX_TOKEN_ID_CHARS = 128
"""Of the claim ``jti``."""


class RevokeTokens(NamedTuple):
    """Tokens of a user, or of every user, issued before a time; or the one token whose claim ``jti`` this is, with the
    tickets made from it.

    ``issued_before_ms``: Unix milliseconds, 0 = now. ``expires_at_ms``: with ``jti`` alone, and required there: when
    that token expires (its ``exp``), in Unix milliseconds; the broker forgets it then.
    """

    user: str | None = None
    issued_before_ms: int = 0
    jti: str | None = None
    expires_at_ms: int = 0


class TokensRevoked(NamedTuple):
    """Tokens issued before ``revoked_at_ms``, or the named one, are revoked; ``links`` open connections were ended."""

    revoked_at_ms: int
    links: int


ROWS: tuple[OperationRow, ...] = (
    row(
        43, "users.revoke", RevokeTokens,
        (optional(user_id), integer(0), optional(text(1, MAX_TOKEN_ID_CHARS)), integer(0)), TokensRevoked,
        record(TokensRevoked, (integer(0), integer(0))),
        "Revoke the tokens and tickets of a user, or of all users, issued before a time, or one token by its id.",
        scope=Scope.USERS_WRITE, rate=RateLimit(50, 100), errors=(ErrorCode.OVERLOADED,),
        example=(RevokeTokens("ann"), TokensRevoked(1_800_000_000_000, 1)),
    ),
)  # fmt: skip
