"""Handlers of the operations on RTC calls."""

from __future__ import annotations

from broker.core.tenants.names import plain_name, qualify
from broker.core.users.rtc import RING_S, CallEnd, RtcCall
from broker.operations.caller import Caller, OperationError
from broker.operations.conversations import check_mute, find_own
from broker.operations.kept import required
from broker.operations.parts import Handler, Parts
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


def _ring(parts: Parts, caller: Caller, request: RingRtc) -> RingingRtc:
    calls = required(parts.rtc)
    conversation, user = find_own(parts, caller, request.conversation)
    other = conversation.other(user)
    if not other:
        raise OperationError(ErrorCode.BAD_FIELD, "must be a conversation of two", "conversation")
    callee = qualify(caller.tenant, other)
    if required(parts.conversations).table.blocks(callee, user):
        raise OperationError(ErrorCode.NOT_ALLOWED, "is not possible", "conversation")
    if check_mute(parts, caller):
        raise OperationError(ErrorCode.BUSY, "has another call", "conversation")
    call = calls.ring(
        conversation.id, qualify(caller.tenant, user), caller.name, callee, video=request.video
    )  # fmt: skip
    if call is None:
        raise OperationError(ErrorCode.BUSY, "has another call", "conversation")
    return RingingRtc(call.id, round(RING_S * 1000))


def _accept(parts: Parts, caller: Caller, request: AcceptRtc) -> AcceptedRtc:
    calls, call, user = _found(parts, caller, request.call)
    if not calls.accept(call, user):
        raise OperationError(ErrorCode.OUT_OF_STATE, "does not ring here", "call")
    return AcceptedRtc(call.token)


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
    return OwnRtc(RtcView(call.id, plain_name(call.conversation), plain_name(other), is_incoming, is_answered))


HANDLERS: dict[str, Handler] = {
    "rtc.ring": _ring,
    "rtc.accept": _accept,
    "rtc.reject": _reject,
    "rtc.hang_up": _hang_up,
    "rtc.mine": _mine,
}
