"""Handlers of the operations on must-deliver messages to users."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import structlog

from broker.ledger import (
    Committed,
    DirectState,
    LedgerDamaged,
    LedgerRefused,
    LedgerResult,
    Repeated,
    SubmitResult,
    make_key,
)
from broker.ledger.pending import PendingResult
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, later, required
from broker.operations.parts import Handler, Parts
from broker.users.inbox import BatchResult, Inboxes
from broker.users.settings import opted_out
from protocol.codes import ErrorCode, Role
from protocol.direct_batches import direct_payload, payloads_of
from protocol.fields import FieldError
from protocol.operations.directs import (
    DirectProgress,
    DirectStateRequest,
    DirectStateView,
    DirectStatus,
    ProgressRequest,
    SendManyDirects,
    SendOneDirect,
    SentDirect,
    SentDirects,
)

__all__ = ["HANDLERS"]

log = structlog.get_logger("roomcast.operations")

T = TypeVar("T")


def _inboxes(parts: Parts) -> Inboxes:
    if parts.inboxes is None:
        raise OperationError(ErrorCode.NOT_KEPT, "this broker keeps nothing: start it with a data directory")
    return parts.inboxes


def _permitted(parts: Parts, caller: Caller) -> frozenset[int]:
    """Return the types that a caller may send to users: those of any of its rooms."""
    return parts.types.permitted(Role.APP, caller.allows(None))


def _check_types(parts: Parts, caller: Caller, kind: int, payloads: Sequence[tuple[str, Any]], field: str) -> None:
    """Raise OperationError where the type may not be sent, or a payload is above the size of its type."""
    permitted = _permitted(parts, caller)
    for _, payload in payloads:
        code = parts.types.refusal(kind, payload, permitted)
        if code is not None:
            raise OperationError(code, "is not accepted", field if code is ErrorCode.PAYLOAD_TOO_LARGE else "type")


async def _send(parts: Parts, caller: Caller, request: SendOneDirect) -> SentDirect:
    inboxes = _inboxes(parts)
    try:
        payload = direct_payload(request.type, request.payload)
    except FieldError as error:
        raise OperationError(error.code, error.rule, error.field) from None
    _check_types(parts, caller, request.type, ((request.user, payload),), "payload")
    if request.marketing:
        against = await ask(required(parts.ledger), opted_out, (request.user,))
        if against:
            return SentDirect(0, suppressed=True)
    parts.charge_messages(caller, 1)
    pending = PendingResult[LedgerResult]()
    expires_at_ms = None if request.expires_s is None else parts.unix_ms() + request.expires_s * 1000
    key = make_key("direct call", caller.own_key, content=caller.fingerprint) if caller.key else ""
    submitted = inboxes.send(request.user, request.type, payload, pending.set, key=key, expires_at_ms=expires_at_ms)
    if submitted is not SubmitResult.QUEUED:
        raise later()
    result = await pending.wait()
    if isinstance(result, Committed):
        return SentDirect(result.direct_ids[0])
    if not isinstance(result, Repeated):
        raise later()
    if result.reused:
        raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
    (first,) = result.first.values()
    return SentDirect(first.offset, repeated=True)


async def _send_many(parts: Parts, caller: Caller, request: SendManyDirects) -> SentDirects:
    inboxes = _inboxes(parts)
    if (request.values is None) == (request.users is None):
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or users, and not both", "values")
    values = {user: {} for user in request.users or ()} if request.values is None else request.values
    if not values:
        field = "users" if request.values is None else "values"
        raise OperationError(ErrorCode.BAD_FIELD, "must name at least one user", field)
    try:
        payloads = payloads_of(request.type, request.template, values)
    except FieldError as error:
        raise OperationError(error.code, error.rule, error.field) from None
    _check_types(parts, caller, request.type, payloads, "template")
    parts.charge_messages(caller, len(payloads))
    pending = PendingResult[BatchResult]()
    if not inboxes.send_part(request.batch, request.type, payloads, request.expires_s, pending.set):
        raise later()
    result = await pending.wait()
    if result.reused:
        rule = f"{result.reused} users have another message of this batch"
        raise OperationError(ErrorCode.KEY_REUSED, rule, "batch")
    return SentDirects(request.batch, result.sent, result.repeated, result.failed)


async def _read(question: Awaitable[T]) -> T:
    """Return the ledger's answer; OperationError OVERLOADED where it cannot be read."""
    try:
        return await question
    except (LedgerRefused, LedgerDamaged, sqlite3.Error) as error:
        log.warning("the ledger cannot be read", why=str(error))
        raise later() from None


async def _progress(parts: Parts, caller: Caller, request: ProgressRequest) -> DirectProgress:
    found = await _read(_inboxes(parts).progress(request.batch))
    counts = (found[state] for state in (DirectState.PENDING, DirectState.ACKED, DirectState.EXPIRED))
    return DirectProgress(request.batch, *counts)


async def _state(parts: Parts, caller: Caller, request: DirectStateRequest) -> DirectStateView:
    found = await _read(_inboxes(parts).state(request.user, request.id))
    return DirectStateView(None if found is None else DirectStatus[found.name])


HANDLERS: dict[str, Handler] = {
    "directs.send": _send,
    "directs.send_many": _send_many,
    "directs.progress": _progress,
    "directs.state": _state,
}
