"""Handlers of the operations on mic-link."""

from __future__ import annotations

from typing import Any

from broker.core.commerce import mic as commands
from broker.core.tenants.names import plain_name
from broker.operations.activities import command, read_activity
from broker.operations.caller import Caller, OperationError
from broker.operations.parts import Handler, Parts
from protocol.activities.mic import MicSeats
from protocol.codes import ErrorCode
from protocol.operations.mic import (
    AcceptMic,
    CancelMic,
    GetMic,
    GoOnMic,
    InviteToMic,
    LeaveMic,
    MuteMic,
    RejectFromMic,
    RemoveFromMic,
    RequestMic,
    SetMicSeats,
)
from protocol.operations.rows import DIRECTION

__all__ = ["HANDLERS"]

_KEY = commands.Mic.kind, ""
"""A room has one mic-link."""


def _directs(caller: Caller, room: str) -> bool:
    return caller.is_backend or caller.role_in(room) in DIRECTION


async def _set_seats(parts: Parts, caller: Caller, request: SetMicSeats) -> Any:
    seats = commands.SetSeats(request.seats, tuple(map(plain_name, request.remove)), request.eligibility)
    return await command(parts, caller, request.room, _KEY, seats, creates=True)


def _get(parts: Parts, caller: Caller, request: GetMic) -> Any:
    lists_queue = _directs(caller, request.room)

    def seats(mic: commands.Mic[Any]) -> MicSeats:
        return mic.seats(lists_queue=lists_queue)

    return read_activity(parts, request.room, _KEY, seats)


async def _request(parts: Parts, caller: Caller, request: RequestMic) -> Any:
    return await command(parts, caller, request.room, _KEY, commands.RequestSeat(), takes_part=True)


async def _withdraw(parts: Parts, caller: Caller, request: CancelMic | LeaveMic) -> Any:
    return await command(parts, caller, request.room, _KEY, commands.Withdraw(request.fence))


async def _invite(parts: Parts, caller: Caller, request: InviteToMic) -> Any:
    invite = commands.InviteUser(plain_name(request.user), request.seat, request.rtc_token)
    return await command(parts, caller, request.room, _KEY, invite)


async def _reject(parts: Parts, caller: Caller, request: RejectFromMic | RemoveFromMic) -> Any:
    return await command(parts, caller, request.room, _KEY, commands.RejectUser(plain_name(request.user)))


async def _accept(parts: Parts, caller: Caller, request: AcceptMic) -> Any:
    return await command(parts, caller, request.room, _KEY, commands.AcceptInvitation(request.fence))


async def _go_on_mic(parts: Parts, caller: Caller, request: GoOnMic) -> Any:
    return await command(parts, caller, request.room, _KEY, commands.ConfirmOnMic(request.fence))


async def _mute(parts: Parts, caller: Caller, request: MuteMic) -> Any:
    if request.user is not None and not _directs(caller, request.room):
        raise OperationError(ErrorCode.NOT_ALLOWED, "is for the host and assistants", "user")
    if request.user is None and caller.is_backend:
        raise OperationError(ErrorCode.BAD_FIELD, "is required", "user")
    user = None if request.user is None else plain_name(request.user)
    mute = commands.MuteMicrophone(request.is_muted, user, request.fence)
    return await command(parts, caller, request.room, _KEY, mute)


HANDLERS: dict[str, Handler] = {
    "mic.set_seats": _set_seats,
    "mic.get": _get,
    "mic.request": _request,
    "mic.cancel": _withdraw,
    "mic.invite": _invite,
    "mic.reject": _reject,
    "mic.accept": _accept,
    "mic.on_mic": _go_on_mic,
    "mic.leave": _withdraw,
    "mic.remove": _reject,
    "mic.mute": _mute,
}
