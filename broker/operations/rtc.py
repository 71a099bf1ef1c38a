"""Handlers of the operations on RTC calls."""

from __future__ import annotations

from broker.core.tenants.names import plain_name, qualify
from broker.core.users.desk_records import DeskConversation, DeskState
from broker.core.users.rtc import RING_S, CallEnd, RtcCall
from broker.core.users.service_desk import Stale
from broker.operations.caller import Caller, OperationError
from broker.operations.conversations import check_mute, find_own
from broker.operations.kept import required
from broker.operations.parts import Handler, Parts
from broker.users.desks import NotWritten
from broker.users.rtc import RtcService
from protocol.codes import ErrorCode
from protocol.operations.rtc import (
    AcceptedRtc,
    AcceptRtc,
    EndedRtc,
    GetRtc,
    HangUpRtc,
    OwnRtc,
    RejectRtc,
    RingingRtc,
    RingRtc,
    RtcView,
)

__all__ = ["HANDLERS"]


def _found(parts: Parts, caller: Caller, id: str) -> tuple[RtcService, RtcCall, str]:
    """Return the calls, one that the caller takes part in, and the caller's qualified id."""
    calls, user = required(parts.rtc), caller.user
    call = calls.table.find(id, user)
    if call is None:
        raise OperationError(ErrorCode.UNKNOWN_CALL, "is over, or not of yours", "call")
    return calls, call, user


def _desk_row(parts: Parts, caller: Caller, conversation: str) -> DeskConversation | None:
    """Return the conversation of the service desk of this id; None: it is none."""
    desk = required(parts.desks).find(caller.tenant)
    return None if desk is None else desk.core.find(conversation)


def _ring(parts: Parts, caller: Caller, request: RingRtc) -> RingingRtc:
    calls = required(parts.rtc)
    conversation, user = find_own(parts, caller, request.conversation)
    row = _desk_row(parts, caller, request.conversation)
    other = conversation.other(user) if row is None else row.customer
    if row is not None and user == row.customer:
        other = row.agent if row.state is DeskState.ASSIGNED else ""
    if row is None and not other:
        raise OperationError(ErrorCode.BAD_FIELD, "must be a conversation of two", "conversation")
    if row is not None and row.state is DeskState.RESOLVED:
        raise OperationError(ErrorCode.OUT_OF_STATE, "is resolved", "conversation")
    callee = qualify(caller.tenant, other) if other else ""
    if callee and required(parts.conversations).table.blocks(callee, user):
        raise OperationError(ErrorCode.NOT_ALLOWED, "is not possible", "conversation")
    if check_mute(parts, caller):
        raise OperationError(ErrorCode.BUSY, "has another call", "conversation")
    call = calls.ring(
        conversation.id, qualify(caller.tenant, user), caller.name, callee, video=request.video
    )  # fmt: skip
    if call is None:
        raise OperationError(ErrorCode.BUSY, "has another call", "conversation")
    return RingingRtc(call.id, round(RING_S * 1000))


async def _accept(parts: Parts, caller: Caller, request: AcceptRtc) -> AcceptedRtc:
    calls, call, user = _found(parts, caller, request.call)
    if not calls.accept(call, user):
        raise OperationError(ErrorCode.OUT_OF_STATE, "does not ring here", "call")
    token, id = call.token, plain_name(call.conversation)
    row, desks = _desk_row(parts, caller, id), required(parts.desks)
    desk = desks.find(caller.tenant)
    if row is not None and desk is not None and row.agent == caller.id:
        core, epoch = desk.core, row.epoch
        try:
            await desks.change(desk, id, lambda now_ms: core.answer(id, caller.id, epoch, now_ms))
        except (Stale, NotWritten):
            pass  # the call goes on: only the time to answer in writing does too
    return AcceptedRtc(token)


def _reject(parts: Parts, caller: Caller, request: RejectRtc) -> EndedRtc:
    calls, call, user = _found(parts, caller, request.call)
    if call.answered_at is not None or user != call.callee:
        raise OperationError(ErrorCode.OUT_OF_STATE, "does not ring here", "call")
    calls.end(call, CallEnd.REJECTED)
    return EndedRtc(call.id)


def _hang_up(parts: Parts, caller: Caller, request: HangUpRtc) -> EndedRtc:
    calls, call, _ = _found(parts, caller, request.call)
    calls.end(call, CallEnd.HUNG_UP)
    return EndedRtc(call.id)


def _mine(parts: Parts, caller: Caller, request: GetRtc) -> OwnRtc:
    user = caller.user
    call = required(parts.rtc).table.of_user(user)
    if call is None:
        return OwnRtc(None)
    other, is_incoming = (call.caller, True) if user == call.callee else (call.callee, False)
    is_answered = call.answered_at is not None
    return OwnRtc(
        RtcView(call.id, plain_name(call.conversation), plain_name(other) if other else "", is_incoming, is_answered)
    )


HANDLERS: dict[str, Handler] = {
    "rtc.ring": _ring,
    "rtc.accept": _accept,
    "rtc.reject": _reject,
    "rtc.hang_up": _hang_up,
    "rtc.mine": _mine,
}
