"""Handler of the revocation of tokens."""

from __future__ import annotations

from typing import Any

import trio

from broker.core.commerce.activity import BROKER, ActivityRefusal
from broker.core.commerce.schedules import USER_CREATOR, CancelJob, Job
from broker.core.tenants.names import plain_name, tenant_of
from broker.core.users.revocations import MAX_TOKENS, Revocation, TooManyTokens
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import later
from broker.operations.parts import Handler, Parts
from protocol.codes import CloseCode, ErrorCode
from protocol.operations.tokens import RevokeTokens, TokensRevoked

__all__ = ["HANDLERS", "end_revoked"]

AHEAD_MS = 30_000
"""How far the caller's clock may be ahead."""
SLICE = 200
"""Connections that are ended before the loop runs again."""
RETRY_MS = 1000
FULL_RETRY_MS = 60_000
MIN_UNIX_MS = 10**12
"""September 2001. Less is a time in seconds: before it no token was issued, and every token has ended."""


async def _revoke(parts: Parts, caller: Caller, request: RevokeTokens) -> TokensRevoked:
    now_ms = parts.unix_ms()
    before_ms = request.issued_before_ms or now_ms
    if before_ms > now_ms + AHEAD_MS:
        raise OperationError(ErrorCode.BAD_FIELD, "must not lie in the future", "issued_before_ms")
    if request.jti is not None:
        is_kept = await _revoke_one(parts, caller.tenant, request, request.jti)
    elif request.expires_at_ms:
        raise OperationError(ErrorCode.BAD_FIELD, "is for jti alone", "expires_at_ms")
    else:
        if before_ms < MIN_UNIX_MS:
            rule = "must be in Unix milliseconds: that is a token's iat times 1,000"
            raise OperationError(ErrorCode.BAD_FIELD, rule, "issued_before_ms")
        user = "" if request.user is None else plain_name(request.user)
        is_kept = await parts.revocations.revoke(Revocation(caller.tenant, user, before_ms))
    links = 0
    for number, session in enumerate(parts.users.all_sessions() if request.user is None else _of(parts, request.user)):
        links += end_revoked(parts, session)
        if number % SLICE == SLICE - 1:
            await trio.lowlevel.checkpoint()
    if not is_kept:
        rule = "holds until a restart, the ledger does not take it now; ask again"
        raise OperationError(ErrorCode.OVERLOADED, rule, "", RETRY_MS)
    return TokensRevoked(before_ms, links + await parts.others.follow())


async def _revoke_one(parts: Parts, tenant: str, request: RevokeTokens, jti: str) -> bool:
    """Revoke one token; returns whether it holds after a restart too."""
    for field in "user", "issued_before_ms":
        if getattr(request, field):
            raise OperationError(ErrorCode.BAD_FIELD, "is not for jti, which names one token", field)
    if not request.expires_at_ms:
        raise OperationError(ErrorCode.BAD_FIELD, "must be when the token expires, with jti", "expires_at_ms")
    if request.expires_at_ms < MIN_UNIX_MS:
        rule = "must be in Unix milliseconds: that is the token's exp times 1,000"
        raise OperationError(ErrorCode.BAD_FIELD, rule, "expires_at_ms")
    try:
        is_kept = await parts.revocations.revoke_token(tenant, jti, request.expires_at_ms)
    except TooManyTokens:
        rule = f"{MAX_TOKENS} tokens are revoked one by one and have not expired: revoke by user, or by time"
        raise OperationError(ErrorCode.OVERLOADED, rule, "jti", FULL_RETRY_MS) from None
    await _cancel_jobs(parts, tenant, jti)
    return is_kept


async def _cancel_jobs(parts: Parts, tenant: str, jti: str) -> None:
    """Cancel what was scheduled with a token and has not run: the broker forgets its id when it has ended, and a job
    may wait for longer."""
    for number, room in enumerate(parts.hub):
        activities = room.state.activities.activities
        if activities is not None and tenant_of(room.name) == tenant:
            for key in activities.keys_of_kind(Job.kind):
                creator = activities.find(*key).waiting_for
                if creator and creator[0] == USER_CREATOR and creator[-1] == jti:
                    pending = PendingResult[Any]()
                    room.command_activity(key, CancelJob(), BROKER, pending.set)
                    answer = await pending.wait()
                    if isinstance(answer, ActivityRefusal) and answer.code is ErrorCode.OVERLOADED:
                        raise later()
        if number % SLICE == SLICE - 1:
            await trio.lowlevel.checkpoint()


def _of(parts: Parts, user: str) -> tuple[Any, ...]:
    return parts.users.sessions(user)


def end_revoked(parts: Parts, session: Any) -> bool:
    """End a connection whose token is revoked; returns whether it is."""
    grant = session.grant
    if grant is None or not grant.expires_at or session.is_remote:  # that is ended at its own node
        return False
    if not parts.revocations.is_revoked(grant.tenant, grant.user_id, grant.issued_at, grant.jti):
        return False
    session.close(CloseCode.TOKEN_REVOKED, "the token was revoked")
    return True


HANDLERS: dict[str, Handler] = {"users.revoke": _revoke}
