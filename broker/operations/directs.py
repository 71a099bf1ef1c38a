"""Handlers of the operations on must-deliver messages to users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker.core.users.marketing import Suppression
from broker.ledger import (
    CANCEL_ROWS,
    Committed,
    DirectState,
    Repeated,
    make_key,
    read_directs,
)
from broker.ledger.pending import PendingResult
from broker.operations.audience_users import audience_page
from broker.operations.caller import Caller, OperationError
from broker.operations.kept import ask, commit, later, read, required, submit
from broker.operations.parts import Handler, Parts
from broker.operations.rooms import room_of
from broker.users.inbox import BatchResult, payload_of
from protocol.codes import ErrorCode, Role
from protocol.direct_batches import direct_payload, payloads_of
from protocol.fields import FieldError
from protocol.messages import MAX_RECIPIENTS
from protocol.operations.directs import (
    CancelDirects,
    CancelledDirects,
    DirectProgress,
    DirectsPage,
    DirectStateRequest,
    DirectStateView,
    DirectStatus,
    DirectView,
    ListDirects,
    ProgressRequest,
    SendManyDirects,
    SendOneDirect,
    SentDirect,
    SentDirects,
    SuppressedBy,
)

__all__ = ["HANDLERS"]

MAX_CANCELLED = 20_000
"""Messages that one call cancels: some seconds, 500 a commit."""
MAX_PAGE_BYTES = 32 * 1024
"""Payloads of one page: an answer to a CALL has at most 64 KiB, and with JSON's escapes payloads grow."""


def _permitted(parts: Parts, caller: Caller) -> frozenset[int]:
    """Return the types that a caller may send to users: those of any of its rooms."""
    return parts.types.permitted(Role.APP, caller.allows(None))


def _check_types(parts: Parts, caller: Caller, kind: int, payloads: Sequence[tuple[str, Any]], field: str) -> None:
    """Raise OperationError where the type may not be sent, or a payload is above the size of its type."""
    permitted = _permitted(parts, caller)
    for _, payload in payloads:
        code = parts.types.refusal(kind, payload, permitted)
        if code is not None:
            is_of_payload = code in (ErrorCode.PAYLOAD_TOO_LARGE, ErrorCode.BAD_FIELD)
            raise OperationError(code, "is not accepted", field if is_of_payload else "type")


async def _send(parts: Parts, caller: Caller, request: SendOneDirect) -> SentDirect:
    inboxes = required(parts.inboxes)
    try:
        payload = direct_payload(request.type, request.payload)
    except FieldError as error:
        raise OperationError(error.code, error.rule, error.field) from None
    _check_types(parts, caller, request.type, ((request.user, payload),), "payload")
    marketing = request.marketing or parts.types.is_marketing(request.type)
    parts.charge_messages(caller, 1)
    expires_at_ms = None if request.expires_s is None else parts.unix_ms() + request.expires_s * 1000
    key = make_key("direct call", caller.own_key, content=caller.fingerprint) if caller.key else ""
    result = await submit(
        lambda on_done: inboxes.send(
            request.user, request.type, payload, on_done, key=key, expires_at_ms=expires_at_ms, marketing=marketing
        )
    )
    if isinstance(result, Committed):
        return _sent(result.direct_ids[0])
    if not isinstance(result, Repeated):
        raise later()
    if result.reused:
        raise OperationError(ErrorCode.KEY_REUSED, "was used before with other content", "key")
    (first,) = result.first.values()
    return _sent(first.offset, repeated=True)


def _sent(number: int, *, repeated: bool = False) -> SentDirect:
    """Return the result of a message with its number, or with the `Suppression` in its place."""
    if number > 0:
        return SentDirect(number, repeated)
    return SentDirect(0, repeated, True, SuppressedBy[Suppression(number).name])


async def _send_many(parts: Parts, caller: Caller, request: SendManyDirects) -> SentDirects:
    inboxes = required(parts.inboxes)
    values, following = await _recipients(parts, caller, request)
    try:
        # An audience may be empty: the message is judged all the same.
        payloads = payloads_of(request.type, request.template, values or {"": {}})
    except FieldError as error:
        if request.audience is not None and error.field.startswith("values"):
            raise OperationError(error.code, "must have no fields: an audience has no values", "template") from None
        raise OperationError(error.code, error.rule, error.field) from None
    _check_types(parts, caller, request.type, payloads, "template")
    if not values:
        return SentDirects(request.batch, 0, 0, 0)
    parts.charge_messages(caller, len(payloads))
    pending = PendingResult[BatchResult]()
    marketing = request.marketing or parts.types.is_marketing(request.type)
    if not inboxes.send_part(
        request.batch, request.type, payloads, request.expires_s, pending.set, marketing=marketing
    ):
        raise later()
    result = await pending.wait()
    if result.reused:
        rule = f"{result.reused} users have another message of this batch"
        raise OperationError(ErrorCode.KEY_REUSED, rule, "batch")
    return SentDirects(request.batch, result.sent, result.repeated, result.failed, following, result.suppressed)


async def _recipients(
    parts: Parts, caller: Caller, request: SendManyDirects
) -> tuple[Mapping[str, Mapping[str, str]], str | None]:
    """Return the users of a part of a batch with their values, and the cursor of the further ones of an audience."""
    given = [field for field in ("values", "users", "audience") if getattr(request, field) is not None]
    if len(given) != 1:
        rule = "must be given, or users, or audience, and only one of them"
        raise OperationError(ErrorCode.BAD_FIELD, rule, given[0] if given else "values")
    if request.audience is None:
        values = {user: {} for user in request.users or ()} if request.values is None else request.values
        if not values:
            raise OperationError(ErrorCode.BAD_FIELD, "must name at least one user", given[0])
        if request.cursor is not None:
            raise OperationError(ErrorCode.BAD_FIELD, "must be given with audience, and only then", "cursor")
        return values, None
    role = caller.role_in(request.audience.room)
    if role is None or not (caller.is_backend or role is Role.APP):
        raise OperationError(ErrorCode.ROOM_NOT_GRANTED, "is not granted", "audience.room")
    room = room_of(parts, request.audience.room)
    users, following = await audience_page(
        room, request.audience.audience, request.cursor, MAX_RECIPIENTS,
        marketing=request.marketing or parts.types.is_marketing(request.type),
    )  # fmt: skip
    return {user: {} for user in users}, following


async def _progress(parts: Parts, caller: Caller, request: ProgressRequest) -> DirectProgress:
    found = await read(required(parts.inboxes).progress(request.batch))
    counts = (
        found[state] for state in (DirectState.PENDING, DirectState.ACKED, DirectState.EXPIRED, DirectState.CANCELLED)
    )
    return DirectProgress(request.batch, *counts)


async def _state(parts: Parts, caller: Caller, request: DirectStateRequest) -> DirectStateView:
    found = await read(required(parts.inboxes).state(request.user, request.id))
    return DirectStateView(None if found is None else DirectStatus[found.name])


async def _list(parts: Parts, caller: Caller, request: ListDirects) -> DirectsPage:
    after = request.cursor or "0"
    if not (after.isascii() and after.isdecimal() and len(after) <= 16):
        raise OperationError(ErrorCode.BAD_FIELD, "is no cursor of this operation", "cursor")
    state = None if request.state is None else DirectState[request.state.name]
    found, last = await ask(
        required(parts.ledger), read_directs, request.user, state, int(after), request.limit, MAX_PAGE_BYTES
    )
    items = tuple(
        DirectView(
            each.direct_id, each.kind, DirectStatus[each.state.name], each.at_ms, each.expires_at_ms,
            each.batch or None, payload_of(each) if request.payloads else None,
        )
        for each in found
    )  # fmt: skip
    return DirectsPage(items, None if last is None else str(last))


async def _cancel(parts: Parts, caller: Caller, request: CancelDirects) -> CancelledDirects:
    inboxes = required(parts.inboxes)
    batch, user, number = request
    if (batch is None) == (user is None):
        raise OperationError(ErrorCode.BAD_FIELD, "must be given, or user and id, and not both", "batch")
    if (user is None) != (number is None):
        raise OperationError(ErrorCode.BAD_FIELD, "must be given with user, and only then", "id")
    cancelled = 0
    while cancelled < MAX_CANCELLED:
        result = await commit(
            lambda on_done: inboxes.cancel(on_done, batch=batch or "", user=user or "", direct_id=number or 0)
        )
        cancelled += len(result.cancelled)
        if len(result.cancelled) < CANCEL_ROWS:
            return CancelledDirects(cancelled)
    return CancelledDirects(cancelled, more=True)


HANDLERS: dict[str, Handler] = {
    "directs.send": _send,
    "directs.send_many": _send_many,
    "directs.progress": _progress,
    "directs.state": _state,
    "directs.list": _list,
    "directs.cancel": _cancel,
}
